# The Python that the tests run on.
FROM python:3.11-slim AS build
COPY requirements.lock /
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r /requirements.lock

FROM python:3.11-slim
RUN useradd --system --uid 10001 gateway && install --directory --owner=10001 /data
COPY --from=build /venv /venv
WORKDIR /srv
COPY alembic.ini ./
COPY alembic alembic
COPY app app
# The relative paths of .env.example (data/…) then lead to the volume /data.
RUN ln -s /data data

ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data \
    DATABASE_URL=sqlite+aiosqlite:////data/gateway.db \
    SPOOL_DIR=/data/spool

USER 10001
VOLUME /data
EXPOSE 3001
HEALTHCHECK --start-period=20s --interval=15s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3001/health', timeout=4)"]
# Migrating is safe in several containers at once. exec: docker's stop signal reaches uvicorn, which waits for
# calls under way, but not for ever for a caller who does not read.
CMD ["sh", "-c", "python -m app.cli migrate && exec python -m uvicorn app.main:app --host 0.0.0.0 --port 3001 --timeout-graceful-shutdown 120"]
