package webtest

import (
	"path/filepath"
	"testing"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

// dataVector is the messages of one sender and generation, in order.
type dataVector struct {
	Secret   hexBytes      `json:"secret"`
	T        hexBytes      `json:"T"`
	From     hexBytes      `json:"from"`
	Gen      uint32        `json:"gen"`
	Messages []dataMessage `json:"messages"`
}

type dataMessage struct {
	Body   hexBytes `json:"body"`
	Sealed hexBytes `json:"sealed"`
}

func TestDataVectors(t *testing.T) {
	path := filepath.FromSlash("../src/data/testdata/vectors.json")
	if *update {
		writeJSON(t, path, []dataVector{newDataVector(t, 1), newDataVector(t, 70_000)})
	}
	var vectors []dataVector
	readJSON(t, path, &vectors)
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range vectors {
		opener, err := e2ee.NewDataOpener(v.Secret, [32]byte(v.T), [32]byte(v.From), v.Gen)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range v.Messages {
			body, err := opener.Open(m.Sealed)
			if err != nil || string(body) != string(m.Body) {
				t.Errorf("generation %d: %q, %v", v.Gen, body, err)
			}
		}
	}
}

func newDataVector(t *testing.T, gen uint32) dataVector {
	t.Helper()
	v := dataVector{Secret: make(hexBytes, 32), T: make(hexBytes, 32), From: make(hexBytes, 32), Gen: gen}
	for i := range v.Secret {
		v.Secret[i], v.T[i], v.From[i] = byte(i), byte(2*i), byte(3*i+int(gen))
	}
	sealer, err := e2ee.NewDataSealer(v.Secret, [32]byte(v.T), [32]byte(v.From), gen)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{`{"t":"keyframe"}`, "", "third"} {
		sealed, err := sealer.Seal([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		v.Messages = append(v.Messages, dataMessage{Body: hexBytes(body), Sealed: sealed})
	}
	return v
}
