#!/usr/bin/env bash
# Downloads the study's 20 CT volumes and their lung masks (about 1 GB) into datasets/zenodo/.
# usage: scripts/download_dataset.sh   (run it again to go on after an interruption)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"
find_python

record=https://zenodo.org/record/3757476/files
dataset=datasets/zenodo
volumes_expected=20

volume_names() {
  find "$dataset/$1" -maxdepth 1 -name '[!.]*.nii.gz' 2>/dev/null | sed 's|.*/||' | sort
}

volume_count() { volume_names "$1" | wc -l | tr -d ' '; }

has_sha256() {
  local hash=(sha256sum)
  command -v sha256sum >/dev/null || hash=(shasum -a 256)
  [[ $("${hash[@]}" "$1") == "$2 "* ]]
}

download() {
  local archive=$1 sha256=$2
  local url=$record/${archive##*/}
  if [[ -f $archive ]] && has_sha256 "$archive" "$sha256"; then
    return
  fi
  command -v wget >/dev/null || fail "wget is missing: install it, or put $url at $PWD/$archive by hand"
  wget --continue --tries=5 --timeout=30 --directory-prefix="$dataset" "$url" ||
    fail "$url cannot be downloaded: try again later, or put it at $PWD/$archive by hand and run this again"
  if ! has_sha256 "$archive" "$sha256"; then
    rm "$archive"
    fail "$archive had the wrong SHA-256 and was deleted: run this again"
  fi
}

unpack() {
  local archive=$1 folder=$2 partial=$2.partial
  rm -rf "$partial"
  mkdir -p "$partial" "$folder"
  "${python[@]}" -m zipfile -e "$archive" "$partial"
  find "$partial" -type f -name '[!.]*.nii.gz' ! -path '*/__MACOSX/*' -exec mv -f {} "$folder/" \;
  rm -rf "$partial"
}

# Volumes reach their folder whole, one move each, so a folder that holds them all is done.
fetch() {
  local name=$1 sha256=$2
  if [[ $(volume_count "$name") -ne $volumes_expected ]]; then
    download "$dataset/$name.zip" "$sha256"
    unpack "$dataset/$name.zip" "$dataset/$name"
  fi
  [[ $(volume_count "$name") -eq $volumes_expected ]] ||
    fail "$dataset/$name holds $(volume_count "$name") volumes instead of $volumes_expected: delete it and run this again"
}

fetch COVID-19-CT-Seg_20cases a5060480eff9315b069b086312dac4872777901fb80d268a5a83edd9f4e7b440
fetch Lung_Mask f060b0d0299939a6d95ddefdbfa281de1a779c4d230a5adbd32414711d6d8187

[[ $(volume_names COVID-19-CT-Seg_20cases) == "$(volume_names Lung_Mask)" ]] ||
  fail "$dataset: the volumes and the lung masks differ in their names: delete both folders and run this again"
echo "$dataset holds the $volumes_expected volumes and their lung masks"
