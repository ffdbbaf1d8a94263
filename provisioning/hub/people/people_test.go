package people

import "testing"

// TestMatrix spells the whole matrix out a second time: a change of the table must be made in two places.
func TestMatrix(t *testing.T) {
	want := map[Role]map[Operation]bool{
		Therapist: {JoinSession: true},
		Patient:   {JoinSession: true},
		Guest:     {JoinSession: true},
		FrontDesk: {MakeSession: true},
		IT:        {MakeSession: true, ReadDocuments: true},
		Auditor:   {},
		Device:    {OpenSession: true, ReadDocuments: true},
	}
	if len(want) != len(Roles()) {
		t.Fatalf("the matrix has %d roles, the table %d", len(want), len(Roles()))
	}
	for _, r := range append(Roles(), "", "Therapist", "admin") {
		for _, op := range append(Operations(), "", "session.*") {
			if got := Allowed(r, op); got != want[r][op] {
				t.Errorf("Allowed(%q, %q) = %v", r, op, got)
			}
		}
	}
}

func TestCheckName(t *testing.T) {
	long := make([]byte, MaxName+1)
	for i := range long {
		long[i] = 'a'
	}
	for _, bad := range []string{"", string(long), "a\x00b", "a\nb", "a\u202eb", "\xff", "a\u200fb"} {
		if CheckName(bad) == nil {
			t.Errorf("CheckName(%q) accepts", bad)
		}
	}
	for _, good := range []string{"Dr. Weiß", "陳小姐", "O'Neill", "Ana María"} {
		if err := CheckName(good); err != nil {
			t.Errorf("CheckName(%q) = %v", good, err)
		}
	}
}
