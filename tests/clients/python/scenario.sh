venv/bin/python scenario.py
