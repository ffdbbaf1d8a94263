// Package webtest makes the test vectors that provisioning/web's TypeScript is checked against, with Tink and the
// documents' own Go code, and checks that the committed vectors still hold. It has no code of its own:
//
//	go test ./provisioning/web/webtest -update
//
// writes the vectors in provisioning/web/src/trust/testdata and provisioning/web/src/data/testdata anew.
package webtest
