package webtest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/signature"
	"github.com/tink-crypto/tink-go/v2/signature/compositemldsa"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"github.com/tink-crypto/tink-go/v2/signature/mldsa"
)

var update = flag.Bool("update", false, "write the vectors anew")

const mldsaKeySize = 1952

// hexBytes is written as lower-case hex in JSON.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *hexBytes) UnmarshalText(text []byte) error {
	decoded, err := hex.DecodeString(string(text))
	*b = decoded
	return err
}

// compositeVector is an owner's public key (ML-DSA-65 ‖ Ed25519) and a signature that Tink made.
type compositeVector struct {
	Name      string   `json:"name"`
	Key       hexBytes `json:"key"`
	Message   hexBytes `json:"message"`
	Signature hexBytes `json:"signature"`
}

func TestCompositeVectors(t *testing.T) {
	path := filepath.FromSlash("../src/trust/testdata/composite.json")
	if *update {
		writeJSON(t, path, []compositeVector{
			newCompositeVector(t, "short", []byte("a document")),
			newCompositeVector(t, "empty", nil),
			newCompositeVector(t, "long", bytes.Repeat([]byte{0xa5}, 4096)),
		})
	}
	var vectors []compositeVector
	readJSON(t, path, &vectors)
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range vectors {
		verifier, err := signature.NewVerifier(publicHandle(t, v.Key))
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if err := verifier.Verify(v.Signature, v.Message); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func suite(t *testing.T) *compositemldsa.Parameters {
	t.Helper()
	params, err := compositemldsa.NewParameters(compositemldsa.Ed25519, compositemldsa.MLDSA65, compositemldsa.VariantNoPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return params
}

func newCompositeVector(t *testing.T, name string, message []byte) compositeVector {
	t.Helper()
	manager := keyset.NewManager()
	id, err := manager.AddNewKeyFromParameters(suite(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.SetPrimary(id); err != nil {
		t.Fatal(err)
	}
	private, err := manager.Handle()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	return compositeVector{Name: name, Key: rawPublicKey(t, private), Message: message, Signature: sig}
}

func rawPublicKey(t *testing.T, private *keyset.Handle) []byte {
	t.Helper()
	public, err := private.Public()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := public.Primary()
	if err != nil {
		t.Fatal(err)
	}
	composite, ok := entry.Key().(*compositemldsa.PublicKey)
	if !ok {
		t.Fatalf("public key is a %T", entry.Key())
	}
	classical, ok := composite.ClassicalPublicKey().(*ed25519.PublicKey)
	if !ok {
		t.Fatalf("classical key is a %T", composite.ClassicalPublicKey())
	}
	return append(composite.MLDSAPublicKey().KeyBytes(), classical.KeyBytes()...)
}

func publicHandle(t *testing.T, raw []byte) *keyset.Handle {
	t.Helper()
	mldsaParams, err := mldsa.NewParameters(mldsa.MLDSA65, mldsa.VariantNoPrefix)
	if err != nil {
		t.Fatal(err)
	}
	postQuantum, err := mldsa.NewPublicKey(raw[:mldsaKeySize], 0, mldsaParams)
	if err != nil {
		t.Fatal(err)
	}
	edParams, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		t.Fatal(err)
	}
	classical, err := ed25519.NewPublicKey(raw[mldsaKeySize:], 0, edParams)
	if err != nil {
		t.Fatal(err)
	}
	public, err := compositemldsa.NewPublicKey(postQuantum, classical, 0, suite(t))
	if err != nil {
		t.Fatal(err)
	}
	manager := keyset.NewManager()
	id, err := manager.AddKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.SetPrimary(id); err != nil {
		t.Fatal(err)
	}
	handle, err := manager.Handle()
	if err != nil {
		t.Fatal(err)
	}
	return handle
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	out, err := json.MarshalIndent(v, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	in, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(in, v); err != nil {
		t.Fatal(err)
	}
}
