"""The image formats that are opened, and those that are recognised and rejected."""

DECODER = 2
"""Decoder version: incremented whenever images decode differently, so that stored results become stale."""

DECODER_EXTRAS = {"heif": "pillow_heif", "jxl": "pillow_jxl", "raw": "rawpy"}
"""The extras that open further formats, and the module of each."""

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
    "MPO": (".mpo",),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "ICNS": (".icns",),
    "PSD": (".psd",),
    "DDS": (".dds",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "QOI": (".qoi",),
    "DIB": (".dib",),
    "SUN": (".ras",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "MSP": (".msp",),
    "FLI": (".fli", ".flc"),
    "BLP": (".blp",),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "PIXAR": (".pxr",),
    "XVTHUMB": (),
    "MCIDAS": (),
    "PCD": (".pcd",),
    "IM": (".im",),
    "IMT": (),
    "SPIDER": (),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "JXL": (".jxl",),
    "RAW": (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw"),
        *(".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    ),
}
"""Pillow's name of each raster format that is opened, in the order tried, with the suffixes a folder walk takes.

Those without a signature (from PCD on) come last: an ICO file begins like a TGA. JPEG, PNG, TIFF, JPEG XL and camera
RAW are recognised by their own markers before Pillow opens the file. HEIF, JPEG XL and RAW need the extras `heif`,
`jxl` and `raw`, but a walk always takes their files, so that without these they are reported instead of missed.
Left out on purpose: formats that run another program (EPS), hold drawings, data or films (WMF, FITS, HDF5, GRIB, BUFR,
MPEG) or only wrap another image (IPTC).
"""

SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

REFUSED = {
    "EPS": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "FITS": (b"SIMPLE  =",),
    "HDF5": (b"\x89HDF",),
    "GRIB": (b"GRIB",),
    "BUFR": (b"BUFR",),
    "MPEG": (b"\x00\x00\x01\xb3", b"\x00\x00\x01\xba"),
    "WMF": (b"\xd7\xcd\xc6\x9a\x00\x00", b"\x01\x00\x00\x00"),
    "PDF": (b"%PDF",),
    "JPEG XR": (b"II\xbc\x00", b"II\xbc\x01"),
}
"""First bytes of image formats that are never opened: such a file is `unsupported`, not `not_an_image`."""
