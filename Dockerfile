# All that a run needs, without a set-up of one's own. For a CPU:
#   docker build -t robustbench_local .
#   docker run --rm -v "$PWD:/work" robustbench_local run quickstart n=100
# For an NVIDIA GPU, whose driver the host has:
#   docker build --build-arg DEVICE=cuda -t robustbench_local:cuda .
#   docker run --rm --gpus all -v "$PWD:/work" robustbench_local:cuda run quickstart device=auto
FROM mambaorg/micromamba:2.5.0

ARG DEVICE=cpu
# the CUDA that the host's driver must know; the machine that builds needs no GPU
ARG CUDA=12.9
ARG PYTHON=3.13

# conda-forge's torch, because its builds for a CPU are small; the rest is what pyproject.toml asks for
RUN CONDA_OVERRIDE_CUDA=${CUDA} micromamba install --yes --name base --channel conda-forge \
        "python=${PYTHON}" "pytorch>=2.9=${DEVICE}*" "torchvision>=0.24" pip "setuptools>=77" \
    && micromamba clean --all --yes
ARG MAMBA_DOCKERFILE_ACTIVATE=1
COPY --chown=$MAMBA_USER:$MAMBA_USER pyproject.toml README.md LICENSE /src/
COPY --chown=$MAMBA_USER:$MAMBA_USER attacks /src/attacks
COPY --chown=$MAMBA_USER:$MAMBA_USER defenses /src/defenses
COPY --chown=$MAMBA_USER:$MAMBA_USER robustbench_local /src/robustbench_local
RUN python -m pip install --no-cache-dir --no-build-isolation /src

WORKDIR /work
ENTRYPOINT ["/usr/local/bin/_entrypoint.sh", "robustbench-local"]
CMD ["--help"]
