# Two commands: `make run` and `make test`. Both set up what they need first.
# PYTHON chooses the interpreter for the environment (3.10 to 3.13).
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3.10 python3; do \
	if $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then echo $$p; break; fi; done)
VENV ?= $(CURDIR)/.venv
BIN := $(VENV)/bin
# Extras of the package to install. The tests train and export small networks, which takes torch.
EXTRAS ?= dev
test unit types: EXTRAS = dev,train,tensorrt
# Nothing leaves this machine unless the user has set it otherwise.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
ifdef ROS_DISTRO
# Interfaces built into the environment beside a sourced distribution are found through these.
export LD_LIBRARY_PATH := $(VENV)/lib:$(LD_LIBRARY_PATH)
export AMENT_PREFIX_PATH := $(VENV):$(AMENT_PREFIX_PATH)
endif
ARGS ?=

.PHONY: help setup run test lint types unit bench clean

help:
	@echo "make run    the whole graph for 30 s: live table, picture and summary in out/run (ARGS='--duration 0 ...')"
	@echo "make test   lint, types and all tests"
	@echo "make setup  only the environment (.venv), with torch to train and export: make setup EXTRAS=dev,train"
	@echo "make bench  all benchmarks; make clean: remove what was built"

setup:
	@test -n "$(PYTHON)" || { echo "make setup: no Python 3.10 to 3.13 found: install python3, or pass PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) tools/setup_env.py --venv $(VENV) --groups "$(EXTRAS)"

run: setup
	@$(BIN)/thermal-enhance run $(ARGS)

test: lint types unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Real nodes over real DDS in a process of their own: beside torch and its gigabyte they miss deadlines.
unit: setup
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest tests/ros
	$(BIN)/python -m pytest --ignore=tests/ros
else
	$(BIN)/python -m pytest $(ARGS)
endif

bench: setup
	$(BIN)/thermal-enhance bench pairing
	$(BIN)/thermal-enhance bench transport
	$(BIN)/thermal-enhance bench enhance

clean:
	rm -rf $(VENV) .venv-setup.log out build ros2_ws/build ros2_ws/install ros2_ws/log
	rm -rf thermal_enhance_pkg/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
