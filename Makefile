# What a person types. Everything else is cargo's business.
SHELL := /bin/bash
FIRMWARE ?= bios
TARGET := $(shell uname -m)-unknown-linux-musl
ASSETS ?= $(CURDIR)/target/assets
# The lab makes network namespaces, which needs root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E)
PROGRAM := target/$(TARGET)/release/bootfabric
export BOOTFABRIC_ASSETS := $(ASSETS)
export CARGO_BUILD_TARGET := $(TARGET)
# root's PATH may lack the directories of ip, tcpdump and depmod
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help build demo test check soak bench assets setup clean

help: ## this text
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## install what building and the lab need (says what and why)
	@tests/setup.sh

build: setup ## build the program, statically linked
	cargo build --release

assets: setup ## fetch the kernel and make the root filesystems that demo and tests boot
	@tests/assets.sh
	@tests/assets-debian.sh
	@tests/assets-ssh.sh
	@tests/assets-busybox.sh

demo: build assets ## boot bare machines from each other, live (FIRMWARE=bios|uefi, KEEP=DIR keeps consoles and captures)
	$(SUDO) $(PROGRAM) lab demo --firmware $(FIRMWARE) $(if $(KEEP),--keep $(KEEP))

check: setup ## formatting and lints
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --profile ci -- -D warnings

test: setup check assets ## all tests: core, simulation, loopback, namespaces, virtual machines
	@tests/run.sh

soak: setup assets ## what takes longer than a test run: every firmware against every root, long simulations
	@tests/run.sh --soak

bench: build assets ## measure, as ratios within one run (installs what to compare with)
	@tests/setup.sh --bench
	cargo bench --workspace

clean: ## remove what building and testing left here
	cargo clean
