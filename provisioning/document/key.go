package document

import (
	"crypto/sha256"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/signature"
	"github.com/tink-crypto/tink-go/v2/signature/compositemldsa"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"github.com/tink-crypto/tink-go/v2/signature/mldsa"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Sizes of the signature suite: ML-DSA-65 (FIPS 204) and Ed25519 (RFC 8032) as
// the composite MLDSA65-Ed25519-SHA512 of draft-ietf-lamps-pq-composite-sigs,
// through Tink without a prefix. The suite is fixed by the documents' version.
const (
	mldsaKeySize   = 1952
	ed25519KeySize = 32
	KeySize        = mldsaKeySize + ed25519KeySize // ML-DSA-65 ‖ Ed25519
	SignatureSize  = 3309 + 64                     // ML-DSA-65 ‖ Ed25519
)

// PublicKey is an owner's public key: ML-DSA-65 ‖ Ed25519, KeySize bytes. There
// is one encoding of one key, so comparing bytes compares keys; a Tink keyset
// would carry an id beside the key and let one key count twice.
type PublicKey Bytes

// MarshalText writes unpadded base64url.
func (k PublicKey) MarshalText() ([]byte, error) { return Bytes(k).MarshalText() }

// UnmarshalText reads KeySize bytes of base64url.
func (k *PublicKey) UnmarshalText(text []byte) error {
	var b Bytes
	if err := b.UnmarshalText(text); err != nil {
		return err
	}
	if len(b) != KeySize {
		return fmt.Errorf("public key has %d bytes, not %d", len(b), KeySize)
	}
	*k = PublicKey(b)
	return nil
}

// ID is the key's name in signatures: SHA-256 of its bytes. It selects a key; it
// proves nothing.
func (k PublicKey) ID() Hash { return sha256.Sum256(k) }

func (k PublicKey) verifier() (tink.Verifier, error) {
	h, err := k.handle()
	if err != nil {
		return nil, fmt.Errorf("owner key %.16s: %w", k.ID(), err)
	}
	return signature.NewVerifier(h)
}

func (k PublicKey) handle() (*keyset.Handle, error) {
	if len(k) != KeySize {
		return nil, fmt.Errorf("%d bytes instead of %d", len(k), KeySize)
	}
	mldsaParameters, err := mldsa.NewParameters(mldsa.MLDSA65, mldsa.VariantNoPrefix)
	if err != nil {
		return nil, err
	}
	pq, err := mldsa.NewPublicKey(k[:mldsaKeySize], 0, mldsaParameters)
	if err != nil {
		return nil, err
	}
	edParameters, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		return nil, err
	}
	classical, err := ed25519.NewPublicKey(k[mldsaKeySize:], 0, edParameters)
	if err != nil {
		return nil, err
	}
	parameters, err := suite()
	if err != nil {
		return nil, err
	}
	composite, err := compositemldsa.NewPublicKey(pq, classical, 0, parameters)
	if err != nil {
		return nil, err
	}
	return single(composite)
}

func suite() (*compositemldsa.Parameters, error) {
	return compositemldsa.NewParameters(compositemldsa.Ed25519, compositemldsa.MLDSA65, compositemldsa.VariantNoPrefix)
}

func single(k key.Key) (*keyset.Handle, error) {
	m := keyset.NewManager()
	id, err := m.AddKey(k)
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	return m.Handle()
}

// PrivateKey is an owner's signing key: a Tink keyset with exactly one key of
// the suite.
type PrivateKey struct {
	handle *keyset.Handle
	public PublicKey
	signer tink.Signer
}

// NewPrivateKey makes a key.
func NewPrivateKey() (*PrivateKey, error) {
	parameters, err := suite()
	if err != nil {
		return nil, fmt.Errorf("make owner key: %w", err)
	}
	m := keyset.NewManager()
	id, err := m.AddNewKeyFromParameters(parameters)
	if err != nil {
		return nil, fmt.Errorf("make owner key: %w", err)
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, fmt.Errorf("make owner key: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return nil, fmt.Errorf("make owner key: %w", err)
	}
	return PrivateKeyFromHandle(h)
}

// PrivateKeyFromHandle takes a keyset that was stored encrypted. It refuses
// keysets with more than one key and keys of another suite.
func PrivateKeyFromHandle(h *keyset.Handle) (*PrivateKey, error) {
	if h.Len() != 1 {
		return nil, fmt.Errorf("owner key: a keyset of one key is expected, it has %d", h.Len())
	}
	entry, err := h.Primary()
	if err != nil {
		return nil, fmt.Errorf("owner key: %w", err)
	}
	private, ok := entry.Key().(*compositemldsa.PrivateKey)
	parameters, err := suite()
	if err != nil {
		return nil, fmt.Errorf("owner key: %w", err)
	}
	if !ok || !private.Parameters().Equal(parameters) {
		return nil, fmt.Errorf("owner key: not an ML-DSA-65 with Ed25519 key without prefix")
	}
	public, err := publicBytes(private)
	if err != nil {
		return nil, fmt.Errorf("owner key: %w", err)
	}
	signer, err := signature.NewSigner(h)
	if err != nil {
		return nil, fmt.Errorf("owner key: %w", err)
	}
	return &PrivateKey{handle: h, public: public, signer: signer}, nil
}

func publicBytes(private *compositemldsa.PrivateKey) (PublicKey, error) {
	k, err := private.PublicKey()
	if err != nil {
		return nil, err
	}
	public, ok := k.(*compositemldsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("unexpected public key %T", k)
	}
	classical, ok := public.ClassicalPublicKey().(*ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("unexpected classical key %T", public.ClassicalPublicKey())
	}
	return append(public.MLDSAPublicKey().KeyBytes(), classical.KeyBytes()...), nil
}

// Public is the key's public half.
func (k *PrivateKey) Public() PublicKey { return k.public }

// Handle is the keyset, for storing it encrypted.
func (k *PrivateKey) Handle() *keyset.Handle { return k.handle }
