package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/signature"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"github.com/tink-crypto/tink-go/v2/tink"
	"golang.org/x/mod/sumdb/note"
)

// algEd25519 is the signature type of C2SP signed-note for Ed25519.
const algEd25519 = 1

// NewSigner makes a note signer (C2SP signed-note, type Ed25519) of a Tink
// keyset with one Ed25519 key without prefix, and gives the verifier key that
// auditors are handed: "<name>+<hash>+<key>". The name is the log's origin.
func NewSigner(name string, h *keyset.Handle) (note.Signer, string, error) {
	if name == "" || strings.ContainsAny(name, " +\n") {
		return nil, "", fmt.Errorf("audit signer: name %q: one word without + is expected", name)
	}
	public, err := h.Public()
	if err != nil {
		return nil, "", fmt.Errorf("audit signer: %w", err)
	}
	entry, err := public.Primary()
	if err != nil {
		return nil, "", fmt.Errorf("audit signer: %w", err)
	}
	k, ok := entry.Key().(*ed25519.PublicKey)
	if !ok || len(k.OutputPrefix()) != 0 {
		return nil, "", fmt.Errorf("audit signer: an Ed25519 key without prefix is expected")
	}
	sign, err := signature.NewSigner(h)
	if err != nil {
		return nil, "", fmt.Errorf("audit signer: %w", err)
	}
	verifier, err := note.NewEd25519VerifierKey(name, k.KeyBytes())
	if err != nil {
		return nil, "", fmt.Errorf("audit signer: %w", err)
	}
	return &signer{name: name, hash: keyHash(name, k.KeyBytes()), sign: sign}, verifier, nil
}

type signer struct {
	name string
	hash uint32
	sign tink.Signer
}

func (s *signer) Name() string                    { return s.name }
func (s *signer) KeyHash() uint32                 { return s.hash }
func (s *signer) Sign(msg []byte) ([]byte, error) { return s.sign.Sign(msg) }

// keyHash is the key id of signed-note: SHA-256(name ‖ "\n" ‖ type ‖ key)[:4].
func keyHash(name string, public []byte) uint32 {
	h := sha256.Sum256(bytes.Join([][]byte{[]byte(name), {'\n', algEd25519}, public}, nil))
	return binary.BigEndian.Uint32(h[:4])
}
