"""Programs that do what `beit batch` does by other means, each as good as its library allows.

Each is a module to run with `python -m`, because what is compared are whole processes. They write the same five labels
a picture into a CSV file, and end with a line `N images/s` that leaves out their start-up, as `beit batch` does.
"""
