#!/usr/bin/env bash
# Fetch the image datasets: data_download.sh caltech|voc|all
#
#   datasets/caltech101/<class>/*.jpg   Caltech101: 9,144 images, a download of 137 MB
#   datasets/VOCdevkit/VOC2012/...      PASCAL VOC 2012, training and validation: 17,125 images, a download of 2 GB
#
# An interrupted download goes on where it stopped, and a dataset that is there already is left alone. One run waits for
# another. CALTECH101_URL and VOC2012_URL name another source, http(s):// or file://; for Caltech101 the .zip, or the
# 101_ObjectCategories.tar.gz in it.
set -euo pipefail
cd "$(dirname "$0")"

# The addresses and MD5 sums are those that torchvision.datasets carries.
readonly CALTECH_OFFICIAL=https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip
readonly CALTECH_MD5=3138e1922a9193bfa496528edbbc45d0
readonly CALTECH_IMAGES=9144
readonly VOC_OFFICIAL=https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar
readonly VOC_MD5=6cd6e144f989b92b3379bac3b3de84fd
readonly VOC_IMAGES=17125
readonly ATTEMPTS=3 # without a new byte
readonly STAMP=.complete

say() { printf '%s\n' "$*" >&2; }
fail() { say "data_download.sh: $*"; exit 1; }

# Wait until no other run is at work in datasets/. The lock is on an open file that all programs started here inherit, so
# what a killed run has left running (tar, curl) holds it as well, until it ends.
lock() {
  exec 9<datasets
  if command -v flock >/dev/null; then
    flock -n 9 || { say "waiting for another run of data_download.sh to end"; flock 9; }
  elif command -v python3 >/dev/null; then
    python3 -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  else
    fail "flock or python3 is needed, so that two runs do not get into each other's way"
  fi
}

need_space() { # NAME MEGABYTES
  local free
  free=$(df -Pk datasets | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge "$2" ] || fail "$1 needs $2 MB of free disk space in $PWD/datasets, there are $free MB"
}

size_of() { # FILE, which may be missing
  if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

md5_of() { # FILE
  if command -v md5sum >/dev/null; then md5sum "$1" | cut -d ' ' -f 1; else md5 -q "$1"; fi
}

# One attempt to fetch URL, going on with what PART holds. What went wrong is shown on a terminal, else kept in PART.log.
attempt() { # NAME URL PART
  local code status=0 quiet=(-sS)
  if [ -t 2 ]; then quiet=(--progress-bar); else exec 2>"$3.log"; fi
  if ! command -v curl >/dev/null; then
    if [ -t 2 ]; then quiet=(-q --show-progress); else quiet=(-nv); fi
    wget -c --tries=1 --timeout=30 "${quiet[@]}" -O "$3" "$2"
    return
  fi
  code=$(curl -fL -C - --connect-timeout 30 --speed-limit 1 --speed-time 60 "${quiet[@]}" -w '%{http_code}' -o "$3" "$2") || status=$?
  case "$status:$code" in
    0:*) ;;                              # also when a killed run had fetched all and not moved it
    33:* | 36:* | *:416) rm -f "$3" ;;   # this server cannot go on from there: start over
    22:408 | 22:429) ;;                  # this may pass
    22:4??) status=8 ;;                  # as wget says it: the server refuses
  esac
  return "$status"
}

# Fetch URL to ARCHIVE. The bytes so far are kept in ARCHIVE.part, also when this is interrupted.
download() { # NAME URL ARCHIVE
  local part=$3.part fruitless=0 before status
  command -v curl >/dev/null || command -v wget >/dev/null || fail "$1: curl or wget is needed to download it"
  say "$1: fetching $2"
  while [ "$fruitless" -lt "$ATTEMPTS" ]; do
    before=$(size_of "$part")
    (attempt "$1" "$2" "$part") && status=0 || status=$?
    if [ "$status" = 0 ]; then
      mv "$part" "$3"
      rm -f "$part.log"
      return
    fi
    if [ "$status" = 8 ]; then break; fi
    if [ "$(size_of "$part")" -gt "$before" ]; then
      fruitless=0
    else
      fruitless=$((fruitless + 1))
      [ "$fruitless" = "$ATTEMPTS" ] || sleep "$fruitless"
    fi
  done
  fail "$1: $2 cannot be fetched: $(tail -n 1 "$part.log" 2>/dev/null || echo "see above"); the same command goes on"
}

# Set `archive` to a local copy of URL: the file itself for file://, else a download, whose checksum is verified if it is
# the official one.
fetch() { # NAME URL OFFICIAL_URL MD5
  local path sum
  case "$2" in
    file://*)
      path=${2#file://}
      path=${path#localhost}
      printf -v archive '%b' "${path//%/\\x}" # %20 and the like
      [ -f "$archive" ] || fail "$1: there is no file $archive"
      ;;
    http://* | https://*)
      archive=datasets/.download/$1-$(printf '%s' "$2" | cksum | cut -d ' ' -f 1)
      mkdir -p datasets/.download
      [ -f "$archive" ] || download "$1" "$2" "$archive"
      if [ "$2" = "$3" ]; then
        sum=$(md5_of "$archive")
        if [ "$sum" != "$4" ]; then
          rm -f "$archive"
          fail "$1: the download is damaged (MD5 $sum, not $4) and was removed; run the same command again"
        fi
      fi
      ;;
    *) fail "$1: $2 is neither an http://, https:// nor file:// address" ;;
  esac
}

unpack() { # NAME ARCHIVE FOLDER
  local log=$3.log
  say "$1: unpacking"
  mkdir -p "$3"
  if [ "$(head -c 2 "$2")" = PK ]; then
    if command -v unzip >/dev/null; then unzip -q "$2" -d "$3" >"$log" 2>&1
    else python3 -m zipfile -e "$2" "$3" >"$log" 2>&1
    fi
  else
    tar -x --no-same-owner -f "$2" -C "$3" >"$log" 2>&1
  fi || damaged "$1" "$2" "$(head -n 1 "$log")"
  rm -f "$log"
}

damaged() { # NAME ARCHIVE REASON
  case "$2" in datasets/.download/*) rm -f "$2" ;; esac # the next run fetches it anew
  fail "$1: the archive from ${url} cannot be used: $3"
}

# How many .jpg an archive lists below a folder of this name.
images_listed() { # ARCHIVE FOLDER
  if [ "$(head -c 2 "$1")" != PK ]; then tar -tf "$1"
  elif command -v unzip >/dev/null; then unzip -Z1 "$1"
  else python3 -c 'import sys, zipfile; print(*zipfile.ZipFile(sys.argv[1]).namelist(), sep="\n")' "$1"
  fi | awk -v folder="/$2/" 'index("/" $0, folder) && /\.jpg$/ && !seen[$0]++ { n++ } END { print n + 0 }'
}

count_images() { find "$1" -type f -name '*.jpg' | wc -l | tr -d ' '; }

# Refuse an unpacked folder with no images, or with fewer than its archive lists.
check_images() { # NAME ARCHIVE FOLDER
  local found listed
  found=$(count_images "$3")
  [ "$found" -gt 0 ] || damaged "$1" "$archive" "it holds no .jpg images"
  listed=$(images_listed "$2" "${3##*/}")
  [ "$found" = "$listed" ] || damaged "$1" "$archive" "it lists $listed images, $found of them were unpacked"
}

# Move the finished folder to its place, at once and with the stamp in it that says so, and tidy up. The stamp is a folder:
# those who read the dataset look for files.
put_in_place() { # NAME FOLDER PLACE
  mkdir -p "$(dirname "$3")" "$2/$STAMP"
  mv "$2" "$3"
  case "$archive" in datasets/.download/*) rm -f "$archive" ;; esac
  rmdir datasets/.download 2>/dev/null || true
}

# Whether the dataset is there. A folder without the stamp is taken for it if no image is missing: an earlier version of
# this script set none, and when it was killed it left a part of the images behind.
there() { # NAME PLACE IMAGES
  local count
  [ -d "$2" ] && [ -n "$(ls -A "$2")" ] || return 1
  if [ ! -d "$2/$STAMP" ]; then
    count=$(count_images "$2")
    [ "$count" = "$3" ] || fail "$1: $2 holds $count of $3 images; remove it, or move it away, to fetch all"
  fi
  say "$1: already in $2"
}

caltech() {
  local url=${CALTECH101_URL:-$CALTECH_OFFICIAL} place=datasets/caltech101 inner folder
  if there caltech "$place" "$CALTECH_IMAGES"; then return; fi
  need_space caltech 500
  fetch caltech "$url" "$CALTECH_OFFICIAL" "$CALTECH_MD5"
  unpack caltech "$archive" "$temporary"
  inner=$(find "$temporary" -name 101_ObjectCategories.tar.gz -type f | head -n 1)
  if [ -n "$inner" ]; then unpack caltech "$inner" "$temporary/inner"; else inner=$archive; fi
  folder=$(find "$temporary" -name 101_ObjectCategories -type d | head -n 1)
  [ -n "$folder" ] || damaged caltech "$archive" "it holds no 101_ObjectCategories"
  check_images caltech "$inner" "$folder"
  rmdir "$place" 2>/dev/null || true
  put_in_place caltech "$folder" "$place"
  say "caltech: $(count_images "$place") images in $(find "$place" -mindepth 1 -type d ! -name "$STAMP" | wc -l | tr -d ' ') folders of $place"
}

voc() {
  local url=${VOC2012_URL:-$VOC_OFFICIAL} place=datasets/VOCdevkit/VOC2012 folder part
  if there voc "$place" "$VOC_IMAGES"; then return; fi
  need_space voc 4500
  fetch voc "$url" "$VOC_OFFICIAL" "$VOC_MD5"
  unpack voc "$archive" "$temporary"
  folder=$(find "$temporary" -name VOC2012 -type d | head -n 1)
  for part in JPEGImages Annotations; do
    [ -n "$folder" ] && [ -d "$folder/$part" ] || damaged voc "$archive" "it holds no VOC2012/$part"
  done
  check_images voc "$archive" "$folder/JPEGImages"
  rmdir "$place" 2>/dev/null || true
  put_in_place voc "$folder" "$place"
  say "voc: $(count_images "$place/JPEGImages") images in $place"
}

# In a subshell, so that one dataset's failure does not keep the other from being fetched.
run() { # DATASET
  (
    set -e
    rm -rf "datasets/.unpack-$1"* # of runs that were killed
    temporary=datasets/.unpack-$1.$$
    trap 'rm -rf "$temporary" "$temporary.log"' EXIT
    "$1"
  )
}

case "${1-}" in caltech | voc | all) ;; *) fail "which dataset? usage: data_download.sh caltech|voc|all" ;; esac
[ "$#" = 1 ] || fail "one dataset at a time, or all: data_download.sh caltech|voc|all"
mkdir -p datasets || fail "cannot make the folder $PWD/datasets"
lock
status=0
if [ "$1" = all ]; then names="caltech voc"; else names=$1; fi
set +e # each run has its own, and would ignore it to the left of ||
for name in $names; do
  run "$name"
  [ "$?" = 0 ] || status=1
done
exit "$status"
