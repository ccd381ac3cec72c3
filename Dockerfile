FROM python:3.13-slim

COPY . /src
RUN pip install --no-cache-dir /src && useradd --create-home tt

USER tt
WORKDIR /town
ENTRYPOINT ["tt"]
