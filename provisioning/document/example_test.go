package document_test

import (
	"fmt"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
)

func Example() {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := make(map[string]*document.PrivateKey)
	root := &document.OwnerRoot{
		Version: 1, Clinic: "Example clinic", Roles: map[string]document.Role{},
		HubPins: []document.Hash{}, RecoveryKeys: []document.Bytes{},
		Issued: now, Expires: now.AddDate(1, 0, 0),
	}
	for _, role := range []string{document.RoleRoot, document.RoleRoster, document.RolePeople, document.RoleConfig} {
		k, err := document.NewPrivateKey()
		if err != nil {
			panic(err)
		}
		keys[role] = k
		root.Roles[role] = document.Role{Threshold: 1, Keys: []document.PublicKey{k.Public()}}
	}
	rootEnvelope, err := document.Sign(root, keys[document.RoleRoot])
	if err != nil {
		panic(err)
	}
	clinic := rootEnvelope.PayloadHash()
	rosterEnvelope, err := document.Sign(&document.Roster{
		Header: document.Header{
			Owner: clinic, RootVersion: 1, Serial: 1, Target: document.TargetAll,
			Issued: now, Expires: now.AddDate(0, 0, 30),
		},
		Devices: []document.Device{},
	}, keys[document.RoleRoster])
	if err != nil {
		panic(err)
	}

	trust, err := document.VerifyOwnerRoot(clinic, []*document.Envelope{rootEnvelope}, now)
	if err != nil {
		panic(err)
	}
	var state document.State
	roster, err := document.Verify[document.Roster](rosterEnvelope, trust, state, now)
	if err != nil {
		panic(err)
	}
	state = state.After(rosterEnvelope, roster)
	fmt.Println(state.In)
	// Output: 1.1
}
