"""Other programs that do the task of `beit batch`, each as fast as its library allows.

Each is a module to run with `python -m`, because whole processes are compared. They write the same five labels per
image into a CSV file, and end with a line `N images/s` that leaves out their start-up, as `beit batch` does.
"""
