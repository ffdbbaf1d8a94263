package people_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/url"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// authenticator is a platform authenticator with one ES256 key, with what can go wrong.
type authenticator struct {
	t                    *testing.T
	key                  *ecdsa.PrivateKey
	id, handle           []byte
	origin, rpID         string
	count                uint32
	unverified, crossing bool
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newAuthenticator(t *testing.T, origin string) *authenticator {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	u, _ := url.Parse(origin)
	return &authenticator{t: t, key: key, id: id, origin: origin, rpID: u.Hostname()}
}

func (a *authenticator) client(kind, challenge string) []byte {
	raw, err := json.Marshal(map[string]any{
		"type": kind, "challenge": challenge, "origin": a.origin, "crossOrigin": a.crossing,
		"other_keys_can_be_added_here": "do not compare clientDataJSON against a template",
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return raw
}

// data is authenticator data (WebAuthn, 6.1).
func (a *authenticator) data(flags byte) []byte {
	if !a.unverified {
		flags |= 0x04
	}
	h := sha256.Sum256([]byte(a.rpID))
	return binary.BigEndian.AppendUint32(append(h[:], flags|0x01), a.count)
}

func option(t *testing.T, a map[string]any, path ...string) any {
	t.Helper()
	var v any = a
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("no %v in %v", path, a)
		}
		v = m[p]
	}
	return v
}

// create answers a registration.
func (a *authenticator) create(begun map[string]any) string {
	a.t.Helper()
	if option(a.t, begun, "options", "publicKey", "rp", "id") != a.rpID ||
		option(a.t, begun, "options", "publicKey", "authenticatorSelection", "userVerification") != "required" {
		a.t.Fatalf("options %v", begun)
	}
	handle, _ := base64.RawURLEncoding.DecodeString(option(a.t, begun, "options", "publicKey", "user", "id").(string))
	a.handle = handle
	point, err := a.key.PublicKey.Bytes()
	if err != nil {
		a.t.Fatal(err)
	}
	cose, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		a.t.Fatal(err)
	}
	data := append(a.data(0x40), make([]byte, 16)...) // attested credential data, AAGUID of none
	data = binary.BigEndian.AppendUint16(data, uint16(len(a.id)))
	data = append(append(data, a.id...), cose...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	if err != nil {
		a.t.Fatal(err)
	}
	return a.response(map[string]any{
		"clientDataJSON":    b64(a.client("webauthn.create", option(a.t, begun, "options", "publicKey", "challenge").(string))),
		"attestationObject": b64(object),
	})
}

// get answers a sign-in or a proof.
func (a *authenticator) get(begun map[string]any) string {
	a.t.Helper()
	if option(a.t, begun, "options", "publicKey", "userVerification") != "required" {
		a.t.Fatalf("options %v", begun)
	}
	a.count++
	client := a.client("webauthn.get", option(a.t, begun, "options", "publicKey", "challenge").(string))
	data := a.data(0)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(bytes.Clone(data), hash[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		a.t.Fatal(err)
	}
	return a.response(map[string]any{
		"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(sig), "userHandle": b64(a.handle),
	})
}

func (a *authenticator) response(r map[string]any) string {
	raw, err := json.Marshal(map[string]any{
		"id": b64(a.id), "rawId": b64(a.id), "type": "public-key", "response": r,
		"clientExtensionResults": map[string]any{}, "authenticatorAttachment": "platform",
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return string(raw)
}
