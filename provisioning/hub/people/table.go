package people

import (
	"fmt"
	"slices"
	"strings"
)

// Role is one of the roles of the product. The zero value is nobody and may do nothing.
type Role string

// The roles. Therapist, Patient and Guest take part in sessions through a browser.
const (
	Therapist Role = "therapist"
	Patient   Role = "patient"
	Guest     Role = "guest"
	FrontDesk Role = "frontdesk"
	IT        Role = "it"
	Auditor   Role = "auditor"
	Device    Role = "device"
	// Anyone is who has shown nothing yet. Everybody has this role beside their own.
	Anyone Role = "anyone"
)

// Roles lists every role once.
func Roles() []Role {
	return []Role{Anyone, Therapist, Patient, Guest, FrontDesk, IT, Auditor, Device}
}

// personRoles are the roles that a person can be given.
func personRoles() []Role { return []Role{Therapist, Patient, Guest, FrontDesk, IT, Auditor} }

// staffRoles are the roles that a clinic's identity provider can give.
func staffRoles() []Role { return []Role{Therapist, FrontDesk, IT, Auditor} }

// Operation is something that the hub does for somebody.
type Operation string

// The operations that exist.
const (
	ReadTrust     Operation = "trust.read"
	UseInvitation Operation = "invitation.use"
	Relay         Operation = "relay"
	UseMedia      Operation = "media"
	SignInOp      Operation = "sign-in"
	OwnSignIn     Operation = "own.sign-in"
	OwnProof      Operation = "own.proof"
	JoinSession   Operation = "session.join"
	OpenSession   Operation = "session.open"
	MakeSession   Operation = "session.make"
	SetPIN        Operation = "pin.set"
	ReadPeople    Operation = "people.read"
	ManagePeople  Operation = "people.manage"
	ReadDocuments Operation = "documents.read"
)

// A Rule says who may do one operation.
type Rule struct {
	Op    Operation
	Roles []Role
	What  string
}

// Table is the one table of roles and operations. What is not in it is refused. docs/roles.md is made from it.
func Table() []Rule {
	return []Rule{
		{ReadTrust, []Role{Anyone}, "read the clinic's public signed documents"},
		{UseInvitation, []Role{Anyone}, "use an invitation up; the invitation is the permission"},
		{Relay, []Role{Anyone}, "open a relay connection; its first message shows the bearer of an invitation"},
		{UseMedia, []Role{Anyone}, "reach the media server; its token is the permission"},
		{SignInOp, []Role{Anyone}, "sign in, register a passkey with a registration, use a recovery code"},
		{OwnSignIn, []Role{Therapist, Patient, Guest, FrontDesk, IT, Auditor}, "see and end the own sign-in"},
		{OwnProof, []Role{Therapist, Patient, Guest}, "ask which own passkeys can prove an endpoint document"},
		{JoinSession, []Role{Therapist, Patient, Guest}, "take part in a session from afar: knock, get a token once admitted"},
		{OpenSession, []Role{Device}, "open a session in its own room, admit, refuse, remove, close"},
		{MakeSession, []Role{FrontDesk, IT}, "make, list and cancel sessions, and invite"},
		{SetPIN, []Role{FrontDesk, IT}, "set a patient's PIN, and say which patient a participant is"},
		{ReadPeople, []Role{FrontDesk, IT}, "list people and what they can sign in with"},
		{ManagePeople, []Role{IT}, "add and remove people; registrations, code generators, recovery codes"},
		{ReadDocuments, []Role{Device, IT}, "read the documents that are for a device"},
	}
}

// Operations lists every operation once.
func Operations() []Operation {
	var list []Operation
	for _, r := range Table() {
		list = append(list, r.Op)
	}
	return list
}

// Allowed reports whether a role may do an operation. What is not listed is refused.
func Allowed(r Role, op Operation) bool {
	for _, rule := range Table() {
		if rule.Op == op {
			return slices.Contains(rule.Roles, r) || r != "" && slices.Contains(rule.Roles, Anyone) && slices.Contains(Roles(), r)
		}
	}
	return false
}

// AllowedAny reports whether one of the roles may do an operation.
func AllowedAny(roles []Role, op Operation) bool {
	return slices.ContainsFunc(roles, func(r Role) bool { return Allowed(r, op) })
}

// Markdown is the table for people to read.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Who may do what at the hub\n\nMade from the table in `provisioning/hub/people/table.go`; a test compares. What has no mark is refused, and\n" +
		"so is every path that has no row. A device shows its key on the devices listener; the admin socket speaks for\nthe front desk and IT together.\n\n")
	b.WriteString("| operation |")
	for _, r := range Roles() {
		fmt.Fprintf(&b, " %s |", r)
	}
	b.WriteString(" what |\n|---|" + strings.Repeat(":-:|", len(Roles())) + "---|\n")
	for _, rule := range Table() {
		fmt.Fprintf(&b, "| %s |", rule.Op)
		for _, r := range Roles() {
			b.WriteString(map[bool]string{true: " yes |", false: " |"}[Allowed(r, rule.Op)])
		}
		fmt.Fprintf(&b, " %s |\n", rule.What)
	}
	return b.String()
}
