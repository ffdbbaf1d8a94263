#!/bin/sh
# Makes the vectors in the parent folder: frames of two encoders, sealed and opened by livekit-client's worker, by
# server-sdk-go and by package e2ee. Needs Go, Node, npm, and ffmpeg with libx264 and libvpx. IVs are random, so every run gives others.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
npm ci --silent

encode() { ffmpeg -hide_banner -loglevel error -f lavfi -i testsrc=size=64x48:rate=15:duration=0.4 -pix_fmt yuv420p -bitexact "$@"; }
encode -c:v libx264 -profile:v baseline -preset ultrafast \
  -x264-params keyint=4:repeat-headers=1:aud=1:slices=2 "$tmp/x264.h264"
encode -c:v libvpx -b:v 100k -deadline realtime -g 4 "$tmp/vp8.ivf"

go run frames.go "$tmp/x264.h264" "$tmp/vp8.ivf" > ../frames.json
go run ours.go ../frames.json > ../ours.json
node make.mjs ../frames.json ../ours.json ../livekit-client.json
go run sdk.go ../frames.json ../ours.json > ../server-sdk-go.json
