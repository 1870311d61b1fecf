// The layers of a BEiT in float, bf16 or int8: layers.py compiles and calls this, for AMX or for AVX512.
//
// Few enough rows go through a layer together that their activations stay in a core's second-level cache. What is done to
// a block of a product (bias, GELU, residual, rounding) is done before it leaves the first-level cache. The residual
// stream stays in float32; only what goes into a product is rounded: to bf16, or for linear maps of 8 bits to whole
// numbers with a scale for each row, of the inner layer for each part of a row.

#include <sys/mman.h>

#include <array>
#include <mutex>
#include <utility>

#ifdef AMX
#include "amx.h"
#else
#include "avx512.h"
#endif

namespace {

template <class Number>
struct Layer {
  const float *before_weight, *before_bias, *after_weight, *after_bias;  // of the layer norms
  Linear<Number> qkv, out, up, down;  // of `qkv` come 64 queries, 64 keys and 64 values for each head
  const Between<Number>* bias;  // of positions: [heads or 1][tokens][tokens up to a tile], -1e30 behind the last token
};

struct Shape {
  Index tokens, hidden, inner, heads;
  Index part;         // columns of the inner layer that are made, and used up, at a time
  Index bias_stride;  // of positions, from one head's to the next's
  Index averages;     // 1 if the last layer gives the mean of an image's states, but for the first
  float eps;
};

// Rows of as many images as go through a layer together; of the inner layer kRows. `taken` and `inner` go into products;
// `attended` and `activated` are rounded to them.
template <class Number>
struct Workspace {
  Index images;
  Rows<Number> taken, inner;
  Rows<Between<Number>> attended, activated;
  float* sums;    // of the inner layer, over each image's states
  Index* places;  // of each row in a thread's heads
};

template <class Number>
void attention_part(const Layer<Number>& layer, const Shape& shape, const Stream& x, Index images,
                    const Workspace<Number>& work, const Own<Between<Number>>& own) {
  using T = Between<Number>;
  const Index rows = images * shape.tokens;
  const Index size = up_to(shape.tokens, Rows<T>::kColumns) * kHead, next = work.images * size;  // of a head: an image's, all
  normalise(x, rows, layer.before_weight, layer.before_bias, shape.eps, work.taken, own.row);
  const Span mine = my_share(shape.heads);
  for (Index head = mine.first; head < mine.last; head++) {
    const Span columns{head * 3 * kHead / kBlock, (head + 1) * 3 * kHead / kBlock};
    linear(work.taken, rows, layer.qkv, columns, [&](Index r, Index column, __m512 low, __m512 high) {
      const Index part = column / kHead % 3;
      const __m512 factor = _mm512_set1_ps(part ? 1.f : kLog2E);
      T* to = own.heads + part * next + work.places[r] + column % kHead;
      store(to, kTile, _mm512_mul_ps(low, factor), _mm512_mul_ps(high, factor));
    });
    for (Index image = 0; image < images; image++) {
      const T* queries = own.heads + image * size;
      const Head<T> given{queries, queries + next, queries + 2 * next, layer.bias + head * shape.bias_stride};
      attend(given, shape.tokens, own, work.attended, image * shape.tokens, head * kHead);
    }
  }
#pragma omp barrier
}

// Of a layer's up and down, what makes and uses up some columns of the inner layer.
template <class Number>
Linear<Number> up_to_part(const Layer<Number>& layer, const Shape& shape, Index part) {
  const auto [weight, scales, bias, starts] = layer.up;
  return {weight + part * shape.hidden, scales + part, bias + part, starts + part};
}

template <class Number>
Linear<Number> down_from_part(const Layer<Number>& layer, const Shape& shape, Index part) {
  const auto [weight, scales, bias, starts] = layer.down;
  return {weight + part * shape.hidden, scales, part ? nullptr : bias, starts + part / shape.part * shape.hidden};
}

// For `linear`: adds columns to a row that begins at `at(row, column)`.
template <class At>
auto added(At at) {
  return [=](Index row, Index column, __m512 low, __m512 high) {
    float* to = at(row, column);
    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), low));
    _mm512_storeu_ps(to + 16, _mm512_add_ps(_mm512_loadu_ps(to + 16), high));
  };
}

// Adds what was attended to `count` rows from `first` on, and takes their norm for the inner layer.
template <class Number>
void attended_part(const Layer<Number>& layer, const Shape& shape, const Stream& stream, Index first, Index count,
                   const Workspace<Number>& work, const Own<Between<Number>>& own) {
  linear(rounded(work.attended.from(first), count, work.taken), count, layer.out, my_share(shape.hidden / kBlock),
         added([=](Index row, Index column) { return stream.at(row, column); }));
#pragma omp barrier
  normalise(stream, count, layer.after_weight, layer.after_bias, shape.eps, work.taken, own.row);
}

template <class Number>
void feed_forward_part(const Layer<Number>& layer, const Shape& shape, const Stream& x, Index rows,
                       const Workspace<Number>& work, const Own<Between<Number>>& own) {
  const Span outer = my_share(shape.hidden / kBlock), inner = my_share(shape.part / kBlock);
  for (Index first = 0; first < rows; first += kRows) {
    const Index count = std::min(kRows, rows - first);
    const Stream stream = x.from(first);
    attended_part(layer, shape, stream, first, count, work, own);
    for (Index part = 0; part < shape.inner; part += shape.part) {
      linear(work.taken, count, up_to_part(layer, shape, part), inner,
             [&](Index r, Index column, __m512 low, __m512 high) {
               store(work.activated, r, column, gelu<Between<Number>>(low), gelu<Between<Number>>(high));
             });
#pragma omp barrier
      linear(rounded(work.activated, count, work.inner), count, down_from_part(layer, shape, part), outer,
             added([=](Index row, Index column) { return stream.at(row, column); }));
#pragma omp barrier
    }
  }
}

// The same, and the mean of each image's states but for the first, to `y`: the map down is linear, and is made of the
// mean of what goes into it.
template <class Number>
void averaged_part(const Layer<Number>& layer, const Shape& shape, const Stream& x, Index images,
                   const Workspace<Number>& work, const Own<Between<Number>>& own, float* y) {
  using T = Between<Number>;
  const Span outer = my_share(shape.hidden / kBlock), inner = my_share(shape.part / kBlock), mine = my_share(images);
  const Index rows = images * shape.tokens;
  const __m512 share = _mm512_set1_ps(1.f / (shape.tokens - 1));
  std::fill_n(work.sums + mine.first * shape.inner, (mine.last - mine.first) * shape.inner, 0.f);
  for (Index first = 0; first < rows; first += kRows) {
    const Index count = std::min(kRows, rows - first);
    attended_part(layer, shape, x.from(first), first, count, work, own);
    for (Index part = 0; part < shape.inner; part += shape.part) {
      const auto add = added([&](Index image, Index column) { return work.sums + image * shape.inner + part + column; });
      linear(work.taken, count, up_to_part(layer, shape, part), inner,
             [&](Index r, Index column, __m512 low, __m512 high) {
               const Index image = (first + r) / shape.tokens;
               if (first + r > image * shape.tokens) add(image, column, gelu<T>(low), gelu<T>(high));
             });
    }
#pragma omp barrier
  }
  for (Index image = mine.first; image < mine.last; image++)
    for (Index c = 0; c < shape.hidden; c += 16) {
      __m512 sum = _mm512_setzero_ps();
      for (Index r = 1; r < shape.tokens; r++) sum = _mm512_add_ps(sum, _mm512_load_ps(x.at(image * shape.tokens + r, c)));
      _mm512_storeu_ps(y + image * shape.hidden + c, _mm512_mul_ps(sum, share));
    }
  for (Index part = 0; part < shape.inner; part += shape.part) {
    for (Index image = mine.first; image < mine.last; image++) {
      const float* sums = work.sums + image * shape.inner + part;
      round([=](Index c) { return _mm512_mul_ps(_mm512_load_ps(sums + c), share); }, own.row, work.activated, image);
    }
#pragma omp barrier
    linear(rounded(work.activated, images, work.inner), images, down_from_part(layer, shape, part), outer,
           added([=](Index image, Index column) { return y + image * shape.hidden + column; }));
#pragma omp barrier
  }
}

// Arrays one after the other, each from a whole line of the caches on.
struct Memory {
  char* start = nullptr;
  Index used = 0;

  template <class T>
  T* take(Index count) {
    const Index at = std::exchange(used, used + up_to(count * sizeof(T), 64));
    return (T*)(start + at);
  }
  template <class Number>
  Rows<Number> take_rows(Index count, Index width) {
    Number* values = take<Number>(count * width);
    return {values, take<float>(count), width};
  }
};

// Memory for a batch, of zeros where nothing is written: what lies behind the last token is read, too.
struct Buffer {
  std::array<Index, 8> layout;  // all that the places in it depend on
  Index bytes;
  char* memory;  // or none
};

// The memory of the last batches, for the next ones of their shape: to clear it anew takes the system as long as a layer.
class Buffers {
 public:
  Buffer take(Buffer wanted) {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      for (Buffer& buffer : kept_)
        if (buffer.memory && buffer.layout == wanted.layout) return std::exchange(buffer, Buffer{});
    }
    void* const memory = mmap(nullptr, wanted.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return wanted;
    madvise(memory, wanted.bytes, MADV_HUGEPAGE);
    wanted.memory = (char*)memory;
    return wanted;
  }

  void keep(Buffer buffer) {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      const auto empty = std::find_if(kept_.begin(), kept_.end(), [](const Buffer& each) { return !each.memory; });
      std::swap(buffer, empty != kept_.end() ? *empty : kept_[next_++ % kept_.size()]);
    }
    if (buffer.memory) munmap(buffer.memory, buffer.bytes);
  }

 private:
  std::mutex lock_;
  std::array<Buffer, 2> kept_{};  // as many batches as are computed at once
  size_t next_ = 0;
};

Buffers buffers;

// Takes x through the layers, to y; false where memory ran out.
template <class Number>
bool run(const Layer<Number>* layers, Index count, const Shape& shape, const float* x, float* y, Index images,
         int threads) {
  using T = Between<Number>;
  const Index across = up_to(shape.tokens, kTile), down = up_to(shape.tokens, Rows<T>::kColumns);
  const Index together = std::min(images, std::max<Index>(1, kRows / shape.tokens));
  const Index rows = up_to(together * shape.tokens, kHigh);
  auto work_in = [&](Memory& memory) {
    return Workspace<Number>{together,
                             memory.take_rows<Number>(rows, shape.hidden),
                             memory.take_rows<Number>(std::is_same_v<Number, Int8> ? kRows : 0, shape.part),
                             memory.take_rows<T>(rows, shape.hidden),
                             memory.take_rows<T>(kRows, shape.part),
                             memory.take<float>(together * shape.inner),
                             memory.take<Index>(rows)};
  };
  auto own_in = [&](Memory& memory) {
    return Own<T>{memory.take<float>(shape.hidden),
               memory.take<T>(3 * together * down * kHead),
               memory.take<T>(across * kHead),
               memory.take<T>(down * kHead),
               memory.take<T>(2 * kHigh * down),
               memory.take<float>(2 * kHigh * across)};
  };
  const Index groups = up_to(images, together) / together;
  auto stream_in = [&](Memory& memory) {
    return Stream{memory.take<float>(groups * rows * shape.hidden), shape.hidden};
  };
  Memory shared, each;
  work_in(shared), stream_in(shared), own_in(each);
  const Index bytes = shared.used + threads * each.used;
  const Buffer buffer = buffers.take(
      {{sizeof(Number), shape.tokens, shape.hidden, shape.inner, shape.part, together, groups, threads},
       bytes,
       nullptr});
  if (!buffer.memory) return false;
  shared = {buffer.memory};
  const Workspace<Number> work = work_in(shared);
  const Stream stream = stream_in(shared);
  // Calls `work(in x and y, in the stream)` for all 32 columns of all rows.
  auto for_stream = [&](auto work) {
    const Span mine = my_share(images * shape.tokens);
    for (Index row = mine.first; row < mine.last; row++) {
      const Index group = row / shape.tokens / together, place = row - group * together * shape.tokens + group * rows;
      for (Index c = 0; c < shape.hidden; c += kBlock) work(row * shape.hidden + c, stream.at(place, c));
    }
#pragma omp barrier
  };
  for (Index row = 0; row < together * shape.tokens; row++)
    work.places[row] = (row / shape.tokens * down + row % shape.tokens) * kHead;
#pragma omp parallel num_threads(threads)
  {
    Memory mine{buffer.memory + shared.used + omp_get_thread_num() * each.used};
    const Own<T> own = own_in(mine);
    const MatrixUnit unit;
    for_stream([=](Index at, float* to) { std::copy_n(x + at, kBlock, to); });
    for (Index layer = 0; layer < count; layer++)
      for (Index group = 0; group < groups; group++) {
        const Index some = std::min(together, images - group * together);
        const Stream states = stream.from(group * rows);
        attention_part(layers[layer], shape, states, some, work, own);
        if (shape.averages && layer == count - 1)
          averaged_part(layers[layer], shape, states, some, work, own, y + group * together * shape.hidden);
        else
          feed_forward_part(layers[layer], shape, states, some * shape.tokens, work, own);
      }
    if (!shape.averages) for_stream([=](Index at, const float* from) { std::copy_n(from, kBlock, y + at); });
  }
  buffers.keep(buffer);
  return true;
}

}  // namespace

extern "C" {

// Packs a linear map's rows of inputs, in words of a float, two Bf16 or four Int8, as weights.
void beit_pack(const uint32_t* rows, Index outputs, Index inputs, Index parts, uint32_t* weight, int threads) {
  const Index steps = inputs / parts / kTile, blocks = outputs / kTile;
#pragma omp parallel for num_threads(threads)
  for (Index block = 0; block < parts * blocks; block++)
    for (Index step = 0; step < steps; step++) {
      const uint32_t* from = rows + block % blocks * kTile * inputs + (block / blocks * steps + step) * kTile;
      uint32_t* to = weight + (block / 2 * steps + step) * 2 * kTile * kTile + block % 2 * kTile * kTile;
      transpose(from, inputs, to);
    }
}

// Take x, (images, tokens, hidden) in float32, through the layers, to y, (images, hidden) if the last one averages; false
// where memory ran out.
#ifndef AMX
bool beit_layers_fp32(const Layer<float>* layers, Index count, const Shape* shape, const float* x, float* y,
                      Index images, int threads) {
  return run(layers, count, *shape, x, y, images, threads);
}
#endif

bool beit_layers_bf16(const Layer<Bf16>* layers, Index count, const Shape* shape, const float* x, float* y,
                      Index images, int threads) {
  return run(layers, count, *shape, x, y, images, threads);
}

bool beit_layers_int8(const Layer<Int8>* layers, Index count, const Shape* shape, const float* x, float* y,
                      Index images, int threads) {
  return run(layers, count, *shape, x, y, images, threads);
}
}
