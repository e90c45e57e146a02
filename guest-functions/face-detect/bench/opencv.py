#!/usr/bin/env python3
"""Times OpenCV's cascade detector on one thread: what face-detect is compared with.

    python3 opencv.py [--repeat N] [--cascade default|alt|alt2|eye|eye-tree-eyeglasses]... FILE...

Needs `pip install 'opencv-python-headless<5' numpy` (version 5 has no cascades). Decoding is not timed. Prints JSON:

    {"opencv": "4.14.0", "results": [{"file": ..., "cascade": ..., "width": ..., "height": ..., "objects": ...,
     "median_ms": ..., "min_ms": ..., "median_cpu_ms": ...}, ...]}

`median_ms` is wall time; `median_cpu_ms` is the thread's own time, which a busy machine disturbs less.
"""

import argparse
import json
import statistics
import sys
import time

import cv2

ORIGINALS = {
    "default": "haarcascade_frontalface_default.xml",
    "alt": "haarcascade_frontalface_alt.xml",
    "alt2": "haarcascade_frontalface_alt2.xml",
    "eye": "haarcascade_eye.xml",
    "eye-tree-eyeglasses": "haarcascade_eye_tree_eyeglasses.xml",
}


def measure(classifier, grey, repeat):
    """Median and least wall time, and median CPU time, in ms; and the number of objects."""
    wall, cpu, objects = [], [], 0
    for _ in range(repeat):
        wall_start, cpu_start = time.perf_counter(), time.thread_time()
        found = classifier.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=3, minSize=(30, 30))
        cpu.append((time.thread_time() - cpu_start) * 1e3)
        wall.append((time.perf_counter() - wall_start) * 1e3)
        objects = len(found)
    return {
        "objects": objects,
        "median_ms": round(statistics.median(wall), 3),
        "min_ms": round(min(wall), 3),
        "median_cpu_ms": round(statistics.median(cpu), 3),
    }


def main():
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description="Times OpenCV's cascade detector on one thread.")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs for each figure (5)")
    parser.add_argument("--cascade", action="append", choices=ORIGINALS, help="which cascades (default)")
    parser.add_argument("files", nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.repeat < 1:
        parser.error("--repeat must be at least 1")

    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    results = []
    for file in arguments.files:
        picture = cv2.imread(file, cv2.IMREAD_COLOR)
        if picture is None:
            sys.exit(f"opencv.py: {file}: not a picture that OpenCV can read")
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        for name in arguments.cascade or ["default"]:
            classifier = cv2.CascadeClassifier(cv2.data.haarcascades + ORIGINALS[name])
            figures = measure(classifier, grey, arguments.repeat)
            height, width = grey.shape
            results.append({"file": file, "cascade": name, "width": width, "height": height, **figures})
    print(json.dumps({"opencv": cv2.__version__, "results": results}, indent=1))


if __name__ == "__main__":
    main()
