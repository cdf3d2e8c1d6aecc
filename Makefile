# make reproduce   the whole study: corpus, pretraining, notebooks, figures, of lilliput or of
#                  EXTRACT=.. [IMAGERY=.. CREDIT=..] [FOOTPRINTS=..]; PRESET=.. SEEDS=3 FOLDS=5
#                  EPOCHS=3 DEVICE=cpu RUN=runs/a BACKBONES=.. CITY_SIZE=12 CORES=4
# make test        format, types, notebooks, tests
# make fuzz        prepare 500 spoilt files (N=.., SEED=..): no crash, no hang, nothing half; 5 minutes
# make bench-data  how fast data are prepared and read, into results/data_speed; about half an hour
# make bench-train CORPUS=corpus/baltimore_md: a training step beside the published way of doing it,
#                  into results/train_speed; some minutes
# make bench-kernels  how fast the GPU kernels are beside every alternative, into results/kernels;
#                  needs a CUDA GPU; under ten minutes (OUT=.., OPERATIONS=..)
# make check-kernels  compile every kernel for GPUs that need not be here, beside the committed table
# make check-gpu   on a GPU (CORPUS=..): the kernels' tests, 50 training steps beside the CPU's, the rate
#                  of training; then bench-kernels
# make ablations   CORPUS="corpus/a corpus/b" [PRESET=ours-t FACTORS="..;.."]: the recipe, one part
#                  changed at a time, a run each, into runs/ablations; many hours, goes on;
#                  DESIGN="half fraction" SEEDS=3 takes four factors and changes them together
# make study       CORPUS="corpus/a corpus/b" [PRESETS="ours-t;study-t" SEEDS=3]: presets
#                  trained without each part that they are tested on, into runs/study; many hours,
#                  goes on; all five folds in turn, FOLDS=0 city by city, TIMES=3 one run of
#                  each preset longer;
#                  SEED=1 EARLIER=results/a/study_t joins another seed or preset to what was published
# make publish     RUN=runs/a: a run's figures into results/
# make lab         the notebooks in JupyterLab
# make clean       caches, not data, corpora or runs
#
# PYTHON=python3.12 names another Python. A machine without a GPU needs no CUDA wheels:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make reproduce

PYTHON ?= python3
CORES ?= 2

# of make reproduce; empty values take the defaults of workflow/Snakefile
EXTRACT ?=
FOOTPRINTS ?=
IMAGERY ?=
CREDIT ?=
PRESET ?=
SEEDS ?= 1
FOLDS ?= 1
DEVICE ?= auto
RUN ?=
EPOCHS ?= 0
TIMES ?= 0
DESIGN ?=
EARLIER ?=
BACKBONES ?=
CITY_SIZE ?= 28

# of make fuzz; the seed also of make study
N ?= 500
SEED ?= 0

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
# threads of OpenMP that wait sleep: where they spin and others want the cores, too, a step takes
# ten times as long
export OMP_WAIT_POLICY ?= passive

.PHONY: help reproduce test fuzz bench-data bench-train bench-kernels check-kernels check-gpu ablations study publish lab clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

reproduce: $(INSTALLED)
	@echo "make reproduce: each step is announced; the figures will be in the run's results/"
	@snakemake --snakefile workflow/Snakefile --cores $(CORES) \
	    --nolock --rerun-incomplete --keep-going --quiet rules reason host \
	    --config extract="$(EXTRACT)" footprints="$(FOOTPRINTS)" imagery="$(IMAGERY)" credit="$(CREDIT)" \
	    preset="$(PRESET)" seeds="$(SEEDS)" folds="$(FOLDS)" device="$(DEVICE)" \
	    run="$(RUN)" epochs="$(EPOCHS)" backbones="$(BACKBONES)" city_size="$(CITY_SIZE)"

test: $(INSTALLED)
	@echo "make test: style ..."
	@ruff check .
	@ruff format --check .
	@nbstripout --verify --keep-id notebooks/*.ipynb
	@echo "make test: types ..."
	@mypy geojepa
	@echo "make test: tests (some minutes) ..."
	@OMP_NUM_THREADS=1 pytest -n $(CORES) --dist loadfile

fuzz: $(INSTALLED)
	@python -W ignore scripts/fuzz.py --cases $(N) --seed $(SEED)

# places to read (of GEOJEPA_DATA/osm or GEOJEPA_MIRROR), turns, objects and tiles at least
bench-data: $(INSTALLED)
	@python scripts/bench_data.py $(if $(EXTRACTS),--extracts $(EXTRACTS)) \
	    $(if $(REPEATS),--repeats $(REPEATS)) $(if $(LARGE),--large $(LARGE)) \
	    $(if $(TILES),--tiles $(TILES)) $(if $(RUN),--run $(RUN))

bench-train: $(INSTALLED)
	@python scripts/bench_train.py --corpus $(CORPUS) --run $(or $(RUN),.)

bench-kernels: $(INSTALLED)
	@PYTHONPATH=kernels python scripts/bench_kernels.py $(if $(OUT),--out $(OUT)) \
	    $(if $(OPERATIONS),--operations $(OPERATIONS))
	@$(if $(OUT),,python -m geojepa.figures.kernel_speed)

check-kernels: $(INSTALLED)
	@python -m geojepa_kernels.check results/kernels/compiled.csv $(if $(WRITE),--write)

check-gpu: $(INSTALLED)
	@python scripts/check_gpu.py $(if $(CORPUS),--corpus $(CORPUS))

ablations: $(INSTALLED)
	@mkdir -p runs/ablations/notebooks
	@papermill --log-level WARNING -k python3 notebooks/07_ablations.ipynb \
	    runs/ablations/notebooks/07_ablations.ipynb $(if $(CORPUS),-r corpus "$(CORPUS)") \
	    $(if $(PRESET),-r preset "$(PRESET)") $(if $(FACTORS),-r factors "$(FACTORS)") \
	    $(if $(DESIGN),-r design "$(DESIGN)") -p seeds $(SEEDS) \
	    -p epochs $(EPOCHS) -r device "$(DEVICE)"

study: $(INSTALLED)
	@mkdir -p runs/study/notebooks
	@papermill --log-level WARNING -k python3 notebooks/10_study.ipynb \
	    runs/study/notebooks/10_study.ipynb $(if $(CORPUS),-r corpus "$(CORPUS)") \
	    $(if $(PRESETS),-r presets "$(PRESETS)") \
	    $(if $(filter file,$(origin FOLDS)),,-p folds $(FOLDS)) -p seeds $(SEEDS) \
	    -p seed $(SEED) -p epochs $(EPOCHS) -p times $(TIMES) \
	    $(if $(EARLIER),-r earlier "$(EARLIER)") -r device "$(DEVICE)"

publish: $(INSTALLED)
	@python -m geojepa.figures.publish $(RUN)

lab: $(INSTALLED)
	@jupyter lab

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .snakemake
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# the stamp is younger than pyproject.toml once all it asks for is installed
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "make: $(PYTHON) is Python %d.%d, but 3.11 or later is needed; name another, as in make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into $(VENV) (some minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $(INSTALLED)
	@echo "installed"
