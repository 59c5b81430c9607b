# `make help` prints the comments that start with two hashes.
#
# Everything runs in .venv, which `make` builds from the pins in pyproject.toml, and finds the
# collection by its full name through a link below .cache.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv check check-newest demo test bench soak lab-up lab-down

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.cache/collections
export MOLECULE_GLOB := molecule/*/molecule.yml
export RINGMAIN_LAB_ID ?= demo

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

venv: ## the tools alone, in .venv
	@tests/tools/venv

check: venv ## lint, types, unit tests, documentation; no root, no lab (STEPS="unit mypy": some)
	@tests/tools/check.py $(STEPS)

check-newest: venv ## the same code on the newest ansible-core, in a Debian 13 tree
	@tests/tools/newest.py

demo: venv ## a whole telephone system on this machine, and two phones that talk; as root
	@tests/tools/demo

test: venv ## everything CI runs, with what each stage took; as root (KEEP_LAB=1 leaves the lab)
	@tests/tools/stages.py

soak: venv ## what takes long: all faults of the database, into docs/reliability.md; as root
	@tests/tools/soak

bench: venv ## measurements, each printed as JSON; as root, on a machine that does nothing else
	@tests/tools/bench

lab-up: venv ## the lab alone: three servers and a probe (RINGMAIN_LAB_ID names it; default demo)
	@ansible-playbook playbooks/lab.yml

lab-down: venv ## remove the lab and all that its servers hold
	@ansible-playbook playbooks/lab.yml -e lab_state=absent
