# make demo: set up, train on drawn pictures, go on at a lower learning rate, train the second stage on
# larger ones, look at the result.
# make test: set up, run the tests.

PYTHON ?= python3
DEMO_STEPS ?= 440
VENV := .venv
RUN := $(VENV)/bin/python

TRAIN_DEMO := $(RUN) train_base.py --dataset-name demo --model-backbone mobilenetv2 \
	--model-name demo --crop-size 128 128 --epoch-end 1000 --log-valid-interval 110
REFINE_DEMO := $(RUN) train_refine.py --dataset-name demo-large --model-backbone mobilenetv2 \
	--model-name demo-refine --crop-size 256 512 --model-refine-sample-pixels 40000 \
	--epoch-end 1000 --log-valid-interval 110
rates = --lr-backbone $(1) --lr-aspp $(1) --lr-decoder $(1)

.PHONY: demo test test-slow lint clean

$(VENV)/installed: requirements.txt
	$(PYTHON) -c "import common"  # refuses a Python that is too old
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt requirements-extra.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check \
		-r requirements-dev.txt -r requirements-extra.txt
	touch $@

demo: $(VENV)/installed
	$(TRAIN_DEMO) $(call rates,2e-3) --overwrite \
		--max-steps $$(( ($(DEMO_STEPS) * 3 + 3) / 4 ))
	$(TRAIN_DEMO) $(call rates,5e-4) --model-last-checkpoint auto --max-steps $(DEMO_STEPS)
	$(RUN) evaluate.py --dataset-name demo --model-checkpoint checkpoint/demo/best.pth --size 128 \
		--json log/demo/evaluation.json --report log/demo/report.html --overwrite
	$(REFINE_DEMO) $(call rates,2e-4) --lr-refiner 3e-3 --overwrite \
		--model-pretrain-initialization checkpoint/demo/best.pth \
		--max-steps $$(( ($(DEMO_STEPS) + 3) / 4 ))
	$(REFINE_DEMO) $(call rates,4e-5) --lr-refiner 6e-4 --model-last-checkpoint auto \
		--max-steps $$(( ($(DEMO_STEPS) * 3 + 9) / 10 ))
	@echo "look at log/demo/preview.png, log/demo-refine/preview.png"
	@echo "and, in a browser, at log/demo/report.html"

test: $(VENV)/installed-dev
	$(RUN) -m pytest -n 2

test-slow: $(VENV)/installed-dev
	$(RUN) -m pytest -n 2 -m slow

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@! grep -rnE "weights_only *= *False|pickle\.(load|Unpickler)" --include=*.py --exclude-dir=$(VENV) --exclude-dir=tests . \
		|| (echo "a pickle would be executed: see above"; exit 1)

clean:
	rm -rf $(VENV) .pytest_cache .pytest_output .ruff_cache .mypy_cache
