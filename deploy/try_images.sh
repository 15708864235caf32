#!/bin/sh
# Builds the images where no registry of bases can be reached, on a base made here, and tries them: as their user, on a
# read-only root, the trainer trains and publishes, both services serve that, and the page shows it. Prints their sizes.
# As root, with buildah and debootstrap (Debian, Ubuntu), from the checkout's root. What it makes is removed at the end.
#   PYTHON  Python 3.11.3 or newer that goes into the base, with a pip beside it (default: python3)
#   BUILD   more flags of `buildah build`: --build-arg TORCH_INDEX=..., a volume with pip's own settings
set -eu
PYTHON=${PYTHON:-python3}
BUILD=${BUILD:-}
IMAGES="retriever user_encoder web trainer"
# Python's own, which an image of Debian brings along where Python is its package.
LIBRARIES=ca-certificates,libbz2-1.0,libffi8,liblzma5,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g
ENCODER=50951 RETRIEVER=50952 ENCODER_HEALTH=50953 RETRIEVER_HEALTH=50954 PAGE=50955

work=$(mktemp -d)
chmod 755 "$work"
export BUILDAH_ISOLATION=chroot
# Storage of its own, so that nothing of anybody else's is touched.
store="--root $work/storage --runroot $work/run"
pids="" health=""
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait; buildah $store umount --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

make_base() {
    debootstrap --variant=minbase --include="$LIBRARIES" bookworm "$work/base" >"$work/base.log" 2>&1 || {
        tail -5 "$work/base.log" >&2
        exit 1
    }
    rm -rf "$work"/base/var/cache/apt/* "$work"/base/var/lib/apt/lists/*
    prefix=$("$PYTHON" -c 'import sys; print(sys.base_prefix)')
    version=$("$PYTHON" -c 'import sys; print(f"python{sys.version_info.major}.{sys.version_info.minor}")')
    mkdir -p "$work/base/usr/local/lib/$version/site-packages"
    tar -C "$prefix/lib/$version" --exclude=./site-packages --exclude=./test --exclude=__pycache__ -cf - . |
        tar -C "$work/base/usr/local/lib/$version" -xf -
    cp -r "$prefix/lib/$version/site-packages/pip" "$work/base/usr/local/lib/$version/site-packages/"
    cp "$prefix/bin/$version" "$work/base/usr/local/bin/"
    cp -P "$prefix"/lib/libpython3* "$work/base/usr/local/lib/" 2>/dev/null || true
    ln -s "$version" "$work/base/usr/local/bin/python3"
    ln -s "$version" "$work/base/usr/local/bin/python"
    printf '#!/bin/sh\nexec /usr/local/bin/python -m pip "$@"\n' >"$work/base/usr/local/bin/pip"
    chmod 755 "$work/base/usr/local/bin/pip"
    chroot "$work/base" ldconfig
    container=$(buildah $store from scratch)
    buildah $store add -q "$container" "$work/base" / >/dev/null
    # As the public base has it; the images' own is made of it.
    buildah $store config --env PATH=/usr/local/bin:/usr/bin:/bin "$container"
    buildah $store commit -q "$container" localhost/base >/dev/null
    buildah $store rm "$container" >/dev/null
    rm -rf "$work/base"
}

build() {
    buildah $store build --pull-never --format docker $BUILD --build-arg BASE=localhost/base \
        --build-arg REVISION="$(git rev-parse HEAD)" -f "deploy/images/$1.Dockerfile" -t "localhost/$1" . \
        >"$work/$1.log" 2>&1 || {
        tail -20 "$work/$1.log" >&2
        exit 1
    }
    mounted=$(buildah $store mount "$(buildah $store from --pull-never "localhost/$1")")
    mkdir "$mounted/volume"
    ln -s "$mounted" "$work/$1"
    buildah $store inspect --type image --format '{{range .OCIv1.Config.Env}}{{.}} {{end}}' "localhost/$1" >"$work/$1.env"
}

# Becomes a command of an image, as its user and in its environment: the root is read-only, /tmp and /volume are not.
become() {
    image=$1
    shift
    exec unshare --mount sh -c '
        root=$1 volume=$2 environment=$3
        shift 3
        mount --bind "$root" "$root"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$volume" "$root/volume"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -o remount,bind,ro "$root"
        exec chroot --userspec=10001:10001 "$root" /usr/bin/env -i $environment \
            sh -c "cd /app && exec \"\$@\"" sh "$@"
    ' sh "$(readlink "$work/$image")" "$work/volume" "$(cat "$work/$image.env") ${health:+MARQUEE_HEALTH_PORT=$health}" "$@"
}

within() {
    (become "$@")
}

eventually() {
    for _ in $(seq 120); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.5
    done
    "$@"
}

starting() {
    become "$@" >"$work/$1.run.log" 2>&1 &
    pids="$pids $!"
}

train() {
    within trainer python -m training.obtain --data sample --into /volume >/dev/null
    within trainer python -m training --data /volume/sample --out /volume/bundle --epochs 1 >"$work/trained.log" 2>&1 || {
        tail -20 "$work/trained.log" >&2
        exit 1
    }
    within trainer python -m marquee.bundle publish --registry /volume/registry /volume/bundle
    within trainer python -m marquee.bundle activate --registry /volume/registry
}

serve() {
    health=$ENCODER_HEALTH
    starting user_encoder python -m services.user_encoder --registry /volume/registry --store /volume/features.sqlite \
        --listen 127.0.0.1:$ENCODER
    eventually within user_encoder python -m services.common.probe
    health=$RETRIEVER_HEALTH
    starting retriever python -m services.retriever --registry /volume/registry --listen 127.0.0.1:$RETRIEVER
    eventually within retriever python -m services.common.probe
    health=""
    starting web python -m clients.web --encoder 127.0.0.1:$ENCODER --retriever 127.0.0.1:$RETRIEVER \
        --listen 127.0.0.1:$PAGE
    eventually within web python -c "$(printf 'from urllib.request import urlopen\nassert b"What most people watch" in urlopen("http://127.0.0.1:%s/").read()' $PAGE)"
}

sizes() {
    printf '%-14s %10s %20s\n' image 'whole, MB' 'beyond its base, MB'
    for image in $IMAGES; do
        root=$(readlink "$work/$image")
        printf '%-14s %10s %20s\n' "$image" "$(du -sm --one-file-system "$root" | cut -f1)" \
            "$(du -smc "$root/site" "$root/app" | tail -1 | cut -f1)"
    done
}

make_base
for image in $IMAGES; do
    build "$image"
done
mkdir "$work/volume"
chown 10001:10001 "$work/volume"
train
serve
echo "All four ran as user 10001 on a read-only root; the page shows what the trainer trained."
sizes
