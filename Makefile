# Two commands: `make demo` shows what talkface does, `make test` runs every check. `make bench` measures.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
S3SERVER := .venv/s3server/.ready
RIVALS := .venv/rivals/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test bench browser setup clean

setup: $(READY)

# mediapipe and face-alignment ask for the OpenCV that needs libGL; the headless one goes over it, so that no system package is needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "talkface needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[offline,all,dev]'
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-contrib-python opencv-contrib-python-headless
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt opencv-contrib-python-headless
	touch $(READY)

# The tests' S3 server cannot share an environment with s3fs.
$(S3SERVER): tests/s3server.txt | $(READY)
	$(PYTHON) -m venv .venv/s3server
	.venv/s3server/bin/python -m pip install --quiet --requirement tests/s3server.txt
	touch $(S3SERVER)

# Small models are quickest on one thread.
DEMO_RUN := --preset tiny --set training.steps=150 --data demo/dataset --hold-out none --cpu --workers 0 --threads 1
DEMO_SOUND := demo/videos/W021/video/front/fear/level_3/001.mp4

# The main job on synthetic faces, offline. One file of the input is no video on purpose, hence exit code 3.
demo: $(READY)
	rm -rf demo
	$(BIN)/toolkit synth demo/videos
	$(BIN)/toolkit ingest demo/videos --out demo/dataset --offline || test $$? -eq 3
	$(BIN)/toolkit verify demo/dataset
	$(BIN)/toolkit stats demo/dataset
	$(BIN)/toolkit why demo/dataset M012/video/front/neutral/level_1/001.mp4
	$(BIN)/toolkit sheet demo/dataset --out demo/sheet.png
	$(BIN)/toolkit report demo/dataset --out demo/report.html
	$(BIN)/toolkit train emodiff $(DEMO_RUN) --out demo/runs/emodiff
	$(BIN)/toolkit train lip $(DEMO_RUN) --out demo/runs/lip
	$(BIN)/toolkit sample --run demo/runs/emodiff --lip demo/runs/lip --audio $(DEMO_SOUND) \
		--data demo/dataset --emotion happy --out demo/talk.npz --cpu --offline
	$(BIN)/toolkit render demo/talk.npz --audio $(DEMO_SOUND) --out demo/talk.mp4 --sheet demo/talk.png --offline
	@echo
	@echo 'Made demo/dataset (shards, manifests, README.md) from the synthetic clips in demo/videos, a tiny EmoDiff and lip'
	@echo 'model trained on it, and demo/talk.mp4, in which a new face says what an old one said, happily.'
	@echo 'Look at demo/sheet.png, demo/report.html and demo/talk.png, then point it at your own folder:'
	@echo '    $(BIN)/toolkit ingest FOLDER --out DATASET'

# The page of `toolkit view` is tested in a real browser: installed where that is possible, else its tests are skipped.
browser:
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq \
		&& apt-get install -y -qq --no-install-recommends chromium > /dev/null; } \
		|| echo 'No Chromium here, and it cannot be installed: tests of the page are skipped.'

test: $(READY) $(S3SERVER) browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile

# Loaders to compare with.
$(RIVALS): benchmarks/rivals.txt | $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .venv/rivals --requirement benchmarks/rivals.txt
	touch $(RIVALS)

bench: $(READY) $(RIVALS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf demo build .venv
