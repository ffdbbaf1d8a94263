package agreement

import (
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/hybrid/hpke"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/signature"
	"github.com/tink-crypto/tink-go/v2/signature/ecdsa"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// suite is the one HPKE suite of version 1.
func suite() (*hpke.Parameters, error) {
	return hpke.NewParameters(hpke.ParametersOpts{
		KEMID: hpke.X_WING, KDFID: hpke.HKDFSHA256, AEADID: hpke.AES256GCM, Variant: hpke.VariantNoPrefix,
	})
}

func handleOf(k key.Key) (*keyset.Handle, error) {
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

// ownKeys are an endpoint's private keys; they live as long as the endpoint.
type ownKeys struct {
	signer tink.Signer
	opener tink.HybridDecrypt
	kemPub []byte
	sigPub [32]byte
}

// newOwnKeys makes both keys from 32 bytes of random each: RFC 8032's private key and X-Wing's decapsulation key.
func newOwnKeys(random io.Reader) (*ownKeys, error) {
	var sigSeed, kemSeed [32]byte
	for _, seed := range [][]byte{sigSeed[:], kemSeed[:]} {
		if _, err := io.ReadFull(random, seed); err != nil {
			return nil, fmt.Errorf("draw key: %w", err)
		}
	}
	o := &ownKeys{}
	if err := o.makeSigner(sigSeed[:]); err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	if err := o.makeOpener(kemSeed[:]); err != nil {
		return nil, fmt.Errorf("make sealing key: %w", err)
	}
	clear(sigSeed[:])
	clear(kemSeed[:])
	return o, nil
}

func (o *ownKeys) makeSigner(seed []byte) error {
	params, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		return err
	}
	priv, err := ed25519.NewPrivateKey(secretdata.NewBytesFromData(seed, insecuresecretdataaccess.Token{}), 0, params)
	if err != nil {
		return err
	}
	pub, err := priv.PublicKey()
	if err != nil {
		return err
	}
	copy(o.sigPub[:], pub.(*ed25519.PublicKey).KeyBytes())
	h, err := handleOf(priv)
	if err != nil {
		return err
	}
	o.signer, err = signature.NewSigner(h)
	return err
}

func (o *ownKeys) makeOpener(seed []byte) error {
	params, err := suite()
	if err != nil {
		return err
	}
	priv, err := hpke.NewPrivateKey(secretdata.NewBytesFromData(seed, insecuresecretdataaccess.Token{}), 0, params)
	if err != nil {
		return err
	}
	pub, err := priv.PublicKey()
	if err != nil {
		return err
	}
	o.kemPub = pub.(*hpke.PublicKey).PublicKeyBytes()
	h, err := handleOf(priv)
	if err != nil {
		return err
	}
	o.opener, err = hybrid.NewHybridDecrypt(h)
	return err
}

// peerKeys are what a document lets others do: verify its messages, seal to it.
type peerKeys struct {
	verifier tink.Verifier
	sealer   tink.HybridEncrypt
}

func newPeerKeys(doc Document) (peerKeys, error) {
	v, err := newVerifier(doc.SigPub)
	if err != nil {
		return peerKeys{}, fmt.Errorf("signing key in document: %w", err)
	}
	params, err := suite()
	if err != nil {
		return peerKeys{}, err
	}
	pub, err := hpke.NewPublicKey(doc.KEMPub, 0, params)
	if err != nil {
		return peerKeys{}, fmt.Errorf("sealing key in document: %w", err)
	}
	h, err := handleOf(pub)
	if err != nil {
		return peerKeys{}, err
	}
	s, err := hybrid.NewHybridEncrypt(h)
	if err != nil {
		return peerKeys{}, fmt.Errorf("sealing key in document: %w", err)
	}
	// A key that parses may still be one that nothing can be sealed to; better known now than in the middle of a switch.
	if _, err := s.Encrypt([]byte{0}, nil); err != nil {
		return peerKeys{}, fmt.Errorf("sealing key in document: %w", err)
	}
	return peerKeys{verifier: v, sealer: s}, nil
}

func newVerifier(pub [32]byte) (tink.Verifier, error) {
	params, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		return nil, err
	}
	k, err := ed25519.NewPublicKey(pub[:], 0, params)
	if err != nil {
		return nil, err
	}
	h, err := handleOf(k)
	if err != nil {
		return nil, err
	}
	return signature.NewVerifier(h)
}

// newDeviceVerifier verifies ECDSA P-256 with SHA-256 and DER signatures, the form in which TPMs and [crypto.Signer] give them.
func newDeviceVerifier(point []byte) (tink.Verifier, error) {
	params, err := ecdsa.NewParameters(ecdsa.NistP256, ecdsa.SHA256, ecdsa.DER, ecdsa.VariantNoPrefix)
	if err != nil {
		return nil, err
	}
	k, err := ecdsa.NewPublicKey(point, 0, params)
	if err != nil {
		return nil, err
	}
	h, err := handleOf(k)
	if err != nil {
		return nil, err
	}
	return signature.NewVerifier(h)
}

func equalBytes(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
