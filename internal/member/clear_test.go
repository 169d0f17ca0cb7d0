package member

import (
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// The next camaster opens when every other host has seen the version and closed, and has
// nothing that is not here.
func TestClear(t *testing.T) {
	now := version(t, "0.5.ns1")
	closed := []evidence.Service{{Name: "postgresql", State: "closed"}, {Name: "ca", State: "standby"}}
	db := func(role string, written, received evidence.LSN) *evidence.PostgreSQL {
		return &evidence.PostgreSQL{Role: role, System: "7", Written: written, Received: received}
	}
	at := func(v string, services []evidence.Service) *RoleState {
		return &RoleState{Role: &evidence.Role{Version: v, Services: services}}
	}
	for _, c := range []struct {
		name   string
		theirs *RoleState
		want   string
	}{
		{"it has closed", at("0.5.ns1", closed), ""},
		{"it knows a newer one", at("1.6.ns2", closed), ""},
		{"it has closed under an older one, and may open again", at("0.4.ns1", closed), "has not seen version 0.5.ns1"},
		{"it says nothing that is understood", at("", closed), "has not seen"},
		{"it has not closed", at("0.5.ns1", []evidence.Service{{Name: "ca", State: "open"}}), "ca of m1 is open"},
		{"it cannot be seen", at("0.5.ns1", []evidence.Service{{Name: "ca", State: "unknown"}}), "ca of m1 is unknown"},
	} {
		if got := unclosed("m1", c.theirs, now); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name        string
		theirs, own *RoleState
		want        string
	}{
		{"all is here", &RoleState{PostgreSQL: db("stopped", 900, 0), CA: &evidence.CA{Complete: true, Hash: "h"}}, &RoleState{PostgreSQL: db("standby", 0, 900), CA: &evidence.CA{Hash: "h"}}, ""},
		{"its log is not here", &RoleState{PostgreSQL: db("stopped", 900, 0)}, &RoleState{PostgreSQL: db("standby", 0, 800)}, "100 bytes"},
		{"it was booted, and reads its own log", &RoleState{PostgreSQL: db("standby", 0, 900)}, &RoleState{PostgreSQL: db("standby", 0, 800)}, "100 bytes"},
		{"its end is not known", &RoleState{PostgreSQL: db("stopped", 0, 0)}, &RoleState{PostgreSQL: db("standby", 0, 800)}, "not known how far"},
		{"it cannot be seen", &RoleState{PostgreSQL: &evidence.PostgreSQL{Role: "unknown"}}, &RoleState{PostgreSQL: db("standby", 0, 800)}, "not known how far"},
		{"the own one cannot be seen", &RoleState{PostgreSQL: db("stopped", 900, 0)}, &RoleState{PostgreSQL: &evidence.PostgreSQL{Role: "unknown"}}, "of this host cannot be seen"},
		{"another database is no matter", &RoleState{PostgreSQL: &evidence.PostgreSQL{Role: "stopped", System: "8", Written: 900}}, &RoleState{PostgreSQL: db("standby", 0, 800)}, ""},
		{"promoted already", &RoleState{PostgreSQL: db("stopped", 900, 0)}, &RoleState{PostgreSQL: db("primary", 0, 0)}, ""},
		{"its CA is newer", &RoleState{CA: &evidence.CA{Complete: true, Hash: "new"}}, &RoleState{CA: &evidence.CA{Hash: "old"}}, "the CA's files"},
		{"its CA is damaged: nothing to wait for", &RoleState{CA: &evidence.CA{Hash: "new"}}, &RoleState{CA: &evidence.CA{Hash: "old"}}, ""},
	} {
		if got := missing("m1", c.theirs, c.own); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
