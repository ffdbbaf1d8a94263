package agreement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// spkiPrefix is the DER of SubjectPublicKeyInfo for P-256 with an uncompressed point, up to the point (RFC 5480). One
// form only: a key has one hash in the roster.
var spkiPrefix, _ = hex.DecodeString("3059301306072a8648ce3d020106082a8648ce3d030107034200")

const pointSize = 65

// DeviceProver proves a device document with the room's identity key: an ECDSA P-256 signer whose signatures are DER,
// as a TPM's.
func DeviceProver(signer crypto.Signer) (func(ProofRequest) (Proof, error), error) {
	pub, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("device proof: the identity key is not ECDSA")
	}
	point, err := pub.Bytes()
	if err != nil || len(point) != pointSize {
		return nil, errors.New("device proof: the identity key is not on P-256")
	}
	spki := append(bytes.Clone(spkiPrefix), point...)
	return func(req ProofRequest) (Proof, error) {
		digest := DeviceProofDigest(req.D, req.K)
		sig, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return Proof{}, fmt.Errorf("sign device proof: %w", err)
		}
		body := appendLP(appendLP(nil, spki), sig)
		return Proof{Kind: KindDevice, Level: LevelClinic, Body: body}, nil
	}, nil
}

// HubProver brings no proof but the server's word.
func HubProver(ProofRequest) (Proof, error) {
	return Proof{Kind: KindHub, Level: LevelServer}, nil
}

// Proofs verifies proofs by kind. A nil field means that this end cannot verify that kind; nothing is assumed then.
type Proofs struct {
	// Device decides whether the key with this SPKI hash may be the room of this session now (roster, room, revocation).
	Device func(doc Document, spkiSHA256 [32]byte) error
	// Passkey and OIDC verify the body against claim.Challenge by the rules of the clinic's people list or provider.
	Passkey func(Claim) error
	OIDC    func(Claim) error
}

// Verify is made for [Config.Verify].
func (p Proofs) Verify(c Claim) (uint8, error) {
	switch c.Proof.Kind {
	case KindDevice:
		if p.Device == nil {
			return LevelNone, nil
		}
		spki, err := verifyDeviceProof(c)
		if err != nil {
			return LevelNone, err
		}
		if err := p.Device(c.Document, spki); err != nil {
			return LevelNone, fmt.Errorf("device proof: %w", err)
		}
		return LevelClinic, nil
	case KindPasskey:
		return verifyChallenged(c, p.Passkey)
	case KindOIDC:
		return verifyChallenged(c, p.OIDC)
	case KindHub:
		return LevelServer, nil
	}
	return LevelNone, errors.New("proof: unknown kind")
}

// verifyChallenged refuses without a challenge of S's own: an assertion that was not asked for can be an old one. Only
// S has the challenge; the other members take S's word, which the transcript holds.
func verifyChallenged(c Claim, verify func(Claim) error) (uint8, error) {
	if verify == nil || c.Challenge == nil {
		return LevelNone, nil
	}
	if err := verify(c); err != nil {
		return LevelNone, fmt.Errorf("proof: %w", err)
	}
	return c.Proof.Level, nil
}

func verifyDeviceProof(c Claim) (spkiSHA256 [32]byte, err error) {
	r := &reader{b: c.Proof.Body}
	spki, sig := r.lp(len(spkiPrefix)+pointSize), r.lp(80)
	if r.end() != nil || len(spki) != len(spkiPrefix)+pointSize || !bytes.HasPrefix(spki, spkiPrefix) {
		return spkiSHA256, fmt.Errorf("device proof: %w", errMalformed)
	}
	v, err := newDeviceVerifier(spki[len(spkiPrefix):])
	if err != nil {
		return spkiSHA256, fmt.Errorf("device proof: key: %w", err)
	}
	if err := v.Verify(sig, preimage(labelProofDevice, c.D[:], c.K[:])); err != nil {
		return spkiSHA256, fmt.Errorf("device proof: signature: %w", err)
	}
	return sha256.Sum256(spki), nil
}
