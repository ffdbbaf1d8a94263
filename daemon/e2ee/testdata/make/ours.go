//go:build ignore

// Ours seals frames with package e2ee:
//
//	go run ours.go frames.json > ours.json
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

type vector struct {
	Name   string `json:"name"`
	Codec  string `json:"codec"`
	Index  uint8  `json:"index"`
	Sealed string `json:"sealed"`
}

func main() {
	var in struct {
		Secret string
		Frames []struct{ Name, Codec, Frame string }
	}
	text, err := os.ReadFile(os.Args[1])
	check(err)
	check(json.Unmarshal(text, &in))
	secret, err := hex.DecodeString(in.Secret)
	check(err)

	var vectors []vector
	streams := map[string][][]byte{}
	for i, f := range in.Frames {
		data, err := hex.DecodeString(f.Frame)
		check(err)
		streams[f.Codec] = append(streams[f.Codec], data)
		gen := uint32(5 * i)
		for _, want := range []string{"", " escape in the iv", " escape in the ciphertext"} {
			if want == "" || f.Codec == "h264" {
				sealed := seal(secret, gen, f.Codec, streams[f.Codec], want)
				vectors = append(vectors, vector{f.Name + want, f.Codec, e2ee.Index(gen), hex.EncodeToString(sealed)})
			}
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	check(out.Encode(vectors))
}

// seal seals a stream and returns its last frame, again and again until the random IV has given the wanted escape.
func seal(secret []byte, gen uint32, codec string, stream [][]byte, want string) []byte {
	size := e2ee.Size{Width: 64, Height: 48}
	for {
		key, err := e2ee.NewEndpoint().SendKey(secret)
		check(err)
		for key.Frames()+len(stream) <= e2ee.MaxFrames {
			s := map[string]*e2ee.Sender{
				"vp8": e2ee.NewVP8Sender(size), "h264": e2ee.NewH264Sender(size), "opus": e2ee.NewOpusSender(0x78, 81),
			}[codec]
			check(s.SetKey(gen, key))
			var sealed []byte
			for _, frame := range stream {
				sealed, err = s.Encrypt(nil, frame)
				check(err)
			}
			iv := sealed[len(sealed)-2-12:]
			body := sealed[60 : len(sealed)-40]
			switch {
			case want == "",
				want == " escape in the iv" && escaped(iv),
				want == " escape in the ciphertext" && escaped(body):
				return sealed
			}
		}
	}
}

func escaped(data []byte) bool { return bytes.Contains(data, []byte{0, 0, 3}) }

func check(err error) {
	if err != nil {
		log.Fatal(fmt.Errorf("making vectors: %w", err))
	}
}
