package e2ee_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

// rawGCM is the frame key of a secret, made without Tink.
func rawGCM(t testing.TB, secret []byte) cipher.AEAD {
	t.Helper()
	return gcmOf(t, secret, "LKFrameEncryptionKey", string(make([]byte, 128)), 16)
}

// blockOf is the same as a block cipher.
func blockOf(t testing.TB, secret []byte) cipher.Block {
	t.Helper()
	return aesOf(t, secret, "LKFrameEncryptionKey", string(make([]byte, 128)), 16)
}

func aesOf(t testing.TB, secret []byte, salt, info string, n int) cipher.Block {
	t.Helper()
	key, err := hkdf.Key(sha256.New, secret, []byte(salt), info, n)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

func gcmOf(t testing.TB, secret []byte, salt, info string, n int) cipher.AEAD {
	t.Helper()
	gcm, err := cipher.NewGCM(aesOf(t, secret, salt, info, n))
	if err != nil {
		t.Fatal(err)
	}
	return gcm
}

// The key and the frame's layout, checked against the standard library: header as associated data, IV behind the tag.
func TestFrameFormat(t *testing.T) {
	frame := vp8Frame(true, ladder[0], 300)
	sealed := sealWith(t, e2ee.NewVP8Sender(ladder...), 21, secretA, frame)
	n := len(sealed)
	if sealed[n-2] != 12 || sealed[n-1] != 5 {
		t.Errorf("trailer % x", sealed[n-2:])
	}
	plain, err := rawGCM(t, secretA).Open(nil, sealed[n-14:n-2], sealed[10:n-14], sealed[:10])
	if err != nil || !bytes.Equal(append(bytes.Clone(sealed[:10]), plain...), frame) {
		t.Errorf("opened to %d bytes, %v", len(plain), err)
	}
}

func lp(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(p))), p...)
	}
	return out
}

var (
	transcript = [32]byte{1, 2, 3}
	author     = [32]byte{4, 5, 6}
)

// The message's layout, key and associated data, checked against the standard library.
func TestMessageFormat(t *testing.T) {
	s, err := e2ee.NewDataSealer(secretA, transcript, author, 0x01020304)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(nil); err != nil { // number 1
		t.Fatal(err)
	}
	sealed, err := s.Seal([]byte(`{"t":"keyframe"}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte{1, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 2}; !bytes.Equal(sealed[:13], want) {
		t.Errorf("header % x", sealed[:13])
	}
	aad := sha256.Sum256(lp([]byte("alcove/data/v1"), transcript[:], author[:], sealed[1:5], sealed[5:13]))
	plain, err := gcmOf(t, secretA, "alcove/data/v1", "", 32).Open(nil, sealed[13:25], sealed[25:], aad[:])
	if err != nil || string(plain) != `{"t":"keyframe"}` {
		t.Errorf("%q, %v", plain, err)
	}
	if len(sealed) != len(plain)+e2ee.DataOverhead {
		t.Errorf("%d bytes for %d", len(sealed), len(plain))
	}
}

func opener(t testing.TB, secret []byte, transcript, from [32]byte, gen uint32) *e2ee.DataOpener {
	t.Helper()
	o, err := e2ee.NewDataOpener(secret, transcript, from, gen)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestMessagesOpenOnceInOrder(t *testing.T) {
	s, err := e2ee.NewDataSealer(secretA, transcript, author, 7)
	if err != nil {
		t.Fatal(err)
	}
	var sealed [4][]byte
	for i := range sealed {
		if sealed[i], err = s.Seal([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if gen, err := e2ee.MessageGeneration(sealed[i]); gen != 7 || err != nil {
			t.Errorf("generation %d, %v", gen, err)
		}
	}
	o := opener(t, secretA, transcript, author, 7)
	for _, step := range []struct {
		i    int
		want error
	}{{0, nil}, {0, e2ee.ErrReplay}, {2, nil}, {1, e2ee.ErrReplay}, {2, e2ee.ErrReplay}, {3, nil}} {
		out, err := o.Open(sealed[step.i])
		if !errors.Is(err, step.want) || err == nil && !bytes.Equal(out, []byte{byte(step.i)}) {
			t.Errorf("message %d: %v, %v, want %v", step.i, out, err, step.want)
		}
	}
	other := author
	other[31]++
	later := transcript
	later[0]++
	for name, c := range map[string]struct {
		o    *e2ee.DataOpener
		want error
	}{
		"another secret":     {opener(t, secretB, transcript, author, 7), e2ee.ErrAuthentication},
		"another transcript": {opener(t, secretA, later, author, 7), e2ee.ErrAuthentication},
		"another author":     {opener(t, secretA, transcript, other, 7), e2ee.ErrAuthentication},
		"another generation": {opener(t, secretA, transcript, author, 23), e2ee.ErrNoKey},
	} {
		if out, err := c.o.Open(sealed[0]); out != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
}

func TestChangedMessagesAreRefused(t *testing.T) {
	s, err := e2ee.NewDataSealer(secretA, transcript, author, 7)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal([]byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	o := opener(t, secretA, transcript, author, 7)
	for i, good := range sealed {
		for v := range 256 {
			if sealed[i] = byte(v); byte(v) == good {
				continue
			}
			if out, err := o.Open(sealed); err == nil || out != nil {
				t.Fatalf("byte %d changed to %#02x: opened", i, v)
			}
		}
		sealed[i] = good
	}
	for n := range sealed {
		if out, err := o.Open(sealed[:n]); err == nil || out != nil {
			t.Fatalf("cut to %d bytes: opened", n)
		}
	}
	if out, err := o.Open(sealed); string(out) != "message" {
		t.Errorf("a forged number moved the opener: %v", err)
	}
	if _, err := s.Seal(make([]byte, e2ee.MaxMessage+1)); !errors.Is(err, e2ee.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := o.Open(make([]byte, e2ee.MaxMessage+e2ee.DataOverhead+1)); !errors.Is(err, e2ee.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	largest, err := s.Seal(make([]byte, e2ee.MaxMessage))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Open(largest); err != nil {
		t.Error(err)
	}
	if _, err := e2ee.NewDataSealer(secretA[:31], transcript, author, 1); !errors.Is(err, e2ee.ErrSecret) {
		t.Error(err)
	}
	if _, err := e2ee.NewDataOpener(nil, transcript, author, 1); !errors.Is(err, e2ee.ErrSecret) {
		t.Error(err)
	}
}
