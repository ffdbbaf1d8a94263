//go:build ignore

// Frames cuts the output of two encoders into frames:
//
//	go run frames.go <h264, Annex B> <vp8, IVF> > frames.json
//
// Opus packets are made up: the format looks at their first byte alone.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
)

type frame struct {
	Name  string `json:"name"`
	Codec string `json:"codec"`
	Frame string `json:"frame"`
}

func main() {
	var frames []frame
	add := func(codec string, i int, data []byte) {
		frames = append(frames, frame{fmt.Sprintf("%s %d", codec, i), codec, hex.EncodeToString(data)})
	}
	annexB, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	aud := []byte{0, 0, 0, 1, 9} // each access unit begins with a delimiter
	for i, au := range bytes.Split(annexB, aud)[1:] {
		add("h264", i, append(bytes.Clone(aud), au...))
	}
	ivf, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	ivf = ivf[32:]
	for i := 0; len(ivf) > 12; i++ {
		size := binary.LittleEndian.Uint32(ivf)
		add("vp8", i, ivf[12:12+size])
		ivf = ivf[12+size:]
	}
	for i := range 3 {
		packet := []byte{0x78}
		for len(packet) < 81 {
			sum := sha256.Sum256(append(packet, byte(i)))
			packet = append(packet, sum[:]...)
		}
		add("opus", i, packet[:81])
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	secret := sha256.Sum256([]byte("a secret for vectors"))
	if err := out.Encode(map[string]any{"secret": hex.EncodeToString(secret[:]), "frames": frames}); err != nil {
		log.Fatal(err)
	}
}
