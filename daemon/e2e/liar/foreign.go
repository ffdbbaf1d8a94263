package liar

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// Foreign is an endpoint of the attacker's: real keys of its own, a real document, real messages.
type Foreign struct {
	run     *Run
	ep      *agreement.Endpoint
	say     func(raw []byte)
	secrets []agreement.RecvKey
	epochs  []agreement.Epoch
	ended   string
	// Member says that the room let it in for all to see, as somebody who only later turns out to be one too many.
	member bool
}

// foreign makes an endpoint for the run; what it says goes through say. proof nil: the hub's word.
func (r *Run) newForeign(role agreement.Role, name string, proof func(agreement.ProofRequest) (agreement.Proof, error), say func([]byte)) *Foreign {
	f := &Foreign{run: r, say: say}
	if proof == nil {
		proof = func(agreement.ProofRequest) (agreement.Proof, error) {
			return agreement.Proof{Kind: agreement.KindHub, Level: agreement.LevelServer}, nil
		}
	}
	ep, err := agreement.New(agreement.Config{
		Role: role, Clinic: r.clinic.hash, SID: parseSID(r.sid), Name: name, Prove: proof,
		Verify: func(c agreement.Claim) (uint8, error) { return c.Proof.Level, nil },
		MinLevel: map[agreement.Role]uint8{agreement.RoleTherapist: 1, agreement.RolePatient: 1,
			agreement.RoleGuest: 1, agreement.RoleDevice: 3},
	})
	if err != nil {
		panic(err) // roles and names here are constants
	}
	f.ep = ep
	r.foreign = append(r.foreign, f)
	return f
}

func (r *Run) now() agreement.Millis {
	return agreement.Millis(r.clinic.clock.Now().Sub(r.began).Milliseconds())
}

func (f *Foreign) hear(raw []byte) { f.do(f.ep.Handle(f.run.now(), raw)) }
func (f *Foreign) tick()           { f.do(f.ep.Tick(f.run.now())) }

func (f *Foreign) do(effects []agreement.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case agreement.Send:
			f.say(e.Message)
		case agreement.RecvKey:
			f.secrets = append(f.secrets, e)
		case agreement.Epoch:
			f.epochs = append(f.epochs, e)
		case agreement.Failed:
			f.ended = e.Reason.String()
		case agreement.Ended:
			f.ended = e.Reason.String()
		}
	}
}

func (f *Foreign) code() string {
	if len(f.epochs) == 0 {
		return ""
	}
	return f.epochs[len(f.epochs)-1].Code
}

// holds returns the T of every epoch in which it has a secret of one of ds.
func (f *Foreign) holds(ds ...agreement.D) []agreement.T {
	var out []agreement.T
	for _, s := range f.secrets {
		if slices.Contains(ds, s.D) {
			out = append(out, s.T)
		}
	}
	return out
}

// strangerKey proves a device that no roster knows; stolenKey proves with the room's own identity key, as somebody
// does who has it: then the code is all that is left, and it has to differ.
func strangerKey() (func(agreement.ProofRequest) (agreement.Proof, error), error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return agreement.DeviceProver(key)
}

func (r *Run) stolenKey() (func(agreement.ProofRequest) (agreement.Proof, error), error) {
	keys, err := r.clinic.proxy.identity()
	if err != nil {
		return nil, err
	}
	return agreement.DeviceProver(crypto.Signer(keys.Sign()))
}
