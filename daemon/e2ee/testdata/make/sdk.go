//go:build ignore

// SDK seals and opens frames with the encryptors of github.com/livekit/server-sdk-go/v2:
//
//	go run sdk.go frames.json ours.json > server-sdk-go.json
//
// The SDK has none for VP8. It seals H.264 as it comes, and Opus.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"runtime/debug"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/livekit/server-sdk-go/v2/e2ee"
)

type vector struct {
	Name   string `json:"name"`
	Codec  string `json:"codec,omitempty"`
	Index  uint8  `json:"index"`
	Sealed string `json:"sealed,omitempty"`
	Opened string `json:"opened"`
}

func main() {
	var in struct {
		Secret string
		Frames []struct{ Name, Codec, Frame string }
	}
	read(os.Args[1], &in)
	var ours []vector
	read(os.Args[2], &ours)
	key, err := lksdk.DeriveKeyFromBytes(unhex(in.Secret))
	check(err)

	var sealed, opened []vector
	for i, f := range in.Frames {
		index := uint8(7 * i % 16)
		v := vector{Name: f.Name, Codec: f.Codec, Index: index, Opened: f.Frame}
		switch f.Codec {
		case "h264":
			v.Sealed = hex.EncodeToString(sealH264(unhex(f.Frame), key, index, false))
			sealed = append(sealed, v)
			v.Name += " escaped"
			v.Sealed = hex.EncodeToString(sealH264(unhex(f.Frame), key, index, true))
			sealed = append(sealed, v)
		case "opus":
			out, err := lksdk.EncryptGCMAudioSample(unhex(f.Frame), key, index)
			check(err)
			v.Sealed = hex.EncodeToString(out)
			sealed = append(sealed, v)
		}
	}
	for _, o := range ours {
		var out []byte
		switch o.Codec {
		case "h264":
			out, err = e2ee.DecryptGCMH264Sample(unhex(o.Sealed), key, nil)
		case "opus":
			out, err = lksdk.DecryptGCMAudioSample(unhex(o.Sealed), key, nil)
		default:
			continue
		}
		check(err)
		opened = append(opened, vector{Name: o.Name, Index: o.Index, Opened: hex.EncodeToString(out)})
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	check(out.Encode(map[string]any{"maker": "server-sdk-go " + version(), "sealed": sealed, "opened": opened}))
}

// sealH264 repeats until the random IV has given an escape behind the clear part, or not.
func sealH264(frame, key []byte, index uint8, escape bool) []byte {
	for {
		out, err := e2ee.EncryptGCMH264Sample(frame, key, index)
		check(err)
		if (len(out) > len(frame)+30) == escape {
			return out
		}
	}
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, d := range info.Deps {
		if d.Path == "github.com/livekit/server-sdk-go/v2" {
			return d.Version
		}
	}
	return "unknown"
}

func read(path string, v any) {
	text, err := os.ReadFile(path)
	check(err)
	check(json.NewDecoder(bytes.NewReader(text)).Decode(v))
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	check(err)
	return b
}

func check(err error) {
	if err != nil {
		log.Fatal(fmt.Errorf("making vectors: %w", err))
	}
}
