package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return noon.Add(-d) }

// holder is a host with everything, open or a standby.
func holder(open bool) *member {
	e := &evidence.Evidence{
		Puppetserver: evidence.Puppetserver{State: "running"},
		Code:         []evidence.Environment{{Name: "production", Revision: "1111111111111111"}},
		CRL:          &evidence.CRL{Number: "5", NextUpdate: noon.Add(time.Hour)},
		CA:           &evidence.CA{Mode: "hot", Sealed: true, Complete: true, Serial: "0A", Hash: "h1", Signed: 9, CRL: &evidence.CRL{Number: "5"}, Source: "m1.example.net", Synced: before(2 * time.Second)},
		PostgreSQL:   &evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Received: 5000, Replayed: 5000, Streaming: true, PrimaryWritten: 5000, PrimaryHeard: before(time.Second), Current: before(3 * time.Second), MaxLag: 1000},
		PuppetDB:     &evidence.PuppetDB{Mode: "hot", State: "running"},
		Role:         &evidence.Role{State: evidence.Standby, Version: "0.4.ns1", Services: []evidence.Service{{Name: "ca", State: "standby"}, {Name: "postgresql", State: "standby"}}},
	}
	if open {
		e.CA.Sealed, e.CA.Source, e.CA.Synced = false, "", time.Time{}
		e.PostgreSQL = &evidence.PostgreSQL{Role: "primary", Timeline: 1, System: "7", Written: 5000}
		e.Role.State, e.Role.Services = evidence.Open, []evidence.Service{{Name: "ca", State: "open"}, {Name: "postgresql", State: "open"}}
	}
	return &member{evidence: e, fresh: true, state: "alive", age: 500 * time.Millisecond, boot: 42, said: before(time.Second), came: before(time.Second)}
}

// moving is m1 as the camaster, m3 as its standby, and nothing in the way.
func moving(kind admin.Kind) *move {
	names := []string{"m1.example.net", "m3.example.net", "puppet-camaster.example.net"}
	certificate := &health.Certificate{Names: names, NotAfter: noon.Add(time.Hour), Trusted: true}
	m := &move{
		now: noon, kind: kind, version: "0.4.ns1", looked: true, alias: "puppet-camaster.example.net.",
		from: side{host: "m1.example.net", known: true, ca: true, datacenter: "dc1", certificate: certificate, member: holder(true)},
		to:   side{host: "m3.example.net", known: true, ca: true, datacenter: "dc2", certificate: certificate, member: holder(false)},
	}
	if kind == admin.KindFailover {
		m.from.verdict = health.Verdict{Down: true, Detail: "refused"}
		m.from.member.fresh, m.from.member.state, m.from.member.since = false, "dead", before(5*time.Second)
	}
	return m
}

// handing is a switchover whose handover is done: m1 is closed, and m3 has everything.
func handing() *move {
	m := moving(admin.KindSwitchover)
	m.handover, m.version = "m3.example.net", "0.5.ns1"
	from := m.from.member.evidence
	from.Role.State, from.Role.Version = evidence.Closed, "0.5.ns1"
	for i := range from.Role.Services {
		from.Role.Services[i].State = "closed"
	}
	from.CA.Sealed = true
	from.PostgreSQL.Role, from.PostgreSQL.Written = "stopped", 5000
	m.to.member.evidence.PostgreSQL.Streaming = false
	return m
}

func TestConditions(t *testing.T) {
	const loss, insist, nothing = " accept-data-loss", " force", " -"
	type edit = func(m *move, from, to *evidence.Evidence)
	for _, test := range []struct {
		name string
		move *move
		edit edit
		want []string // conditions that are not met, with what passes over them
		says string   // one of them, or of all if none is
	}{
		{"failover", moving(admin.KindFailover), nil, nil, "m1.example.net is down: refused; its member is dead since 2026-11-22T11:59:55Z"},
		{"switchover", moving(admin.KindSwitchover), nil, nil, "m1.example.net is open under 0.4.ns1"},
		{"set", moving(admin.KindSet), nil, nil, ""},
		{"handover done", handing(), nil, nil, "everything on m1.example.net is closed under 0.5.ns1"},

		// What everybody can see of the target.
		{"no ca", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.to.ca = false }, []string{"CA-capable" + insist}, "its `master` line has no `ca`"},
		{"drained", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.to.drain = "ops (kernel)" }, []string{"not drained" + insist}, "drained by ops (kernel): `puppetsrvctl undrain m3.example.net` ends that"},
		{"unfit", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.to.unfit = "its puppetserver is stopping" }, []string{"not drained" + insist}, "wants no work: its puppetserver"},
		{"down", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.to.verdict = health.Verdict{Down: true, Detail: "refused"} }, []string{"up" + insist}, "m3.example.net is down: refused"},
		{"up where it stands", moving(admin.KindFailover), nil, nil, "m3.example.net is up, as dc2 sees it"},
		{"no certificate", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.to.certificate = nil }, []string{"certificate" + insist}, "has not shown its certificate"},
		{"no own name", moving(admin.KindFailover), func(m *move, _, to *evidence.Evidence) {
			m.to.certificate = &health.Certificate{Names: []string{"puppet-camaster.example.net"}, NotAfter: noon.Add(time.Hour), Trusted: true}
		}, []string{"certificate" + insist}, "valid for m3.example.net: agents would"},
		{"no alias, PuppetDB", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) {
			m.to.certificate = &health.Certificate{Names: []string{"m3.example.net"}, NotAfter: noon.Add(time.Hour), Trusted: true}
		}, []string{"certificate" + insist}, "valid for puppet-camaster.example.net: PuppetDB's clients would"},
		{"no alias, none needed", moving(admin.KindFailover), func(m *move, from, to *evidence.Evidence) {
			m.to.certificate = &health.Certificate{Names: []string{"m3.example.net"}, NotAfter: noon.Add(time.Hour), Trusted: true}
			from.PuppetDB, to.PuppetDB = nil, nil
		}, nil, "valid for m3.example.net"},
		{"no alias, ca_target camaster", moving(admin.KindFailover), func(m *move, from, to *evidence.Evidence) {
			m.to.certificate = &health.Certificate{Names: []string{"m3.example.net"}, NotAfter: noon.Add(time.Hour), Trusted: true}
			from.PuppetDB, to.PuppetDB = nil, nil
			m.caTarget = topology.CATargetCamaster
		}, []string{"certificate" + insist}, "valid for puppet-camaster.example.net: agents would"},
		{"expired", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) {
			m.to.certificate = &health.Certificate{Names: m.to.certificate.Names, NotAfter: before(time.Second), Trusted: true}
		}, []string{"certificate" + insist, "certificate" + insist}, ""},
		{"nobody looks", moving(admin.KindSet), func(m *move, _, _ *evidence.Evidence) {
			m.looked, m.to.certificate, m.to.verdict.Down = false, nil, true
		}, nil, ""},

		// Its member.
		{"no member", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.to.member = nil }, []string{"member" + insist}, "no member is known on m3.example.net: the CA and the database are moved by hand there"},
		{"no member, set", moving(admin.KindSet), func(m *move, _, _ *evidence.Evidence) { m.to.member = nil }, nil, ""},
		{"dead member", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) {
			m.to.member.fresh, m.to.member.state, m.to.member.since = false, "dead", before(time.Minute)
		}, []string{"member" + insist}, "the member on m3.example.net is dead since 2026-11-22T11:59:00Z: start it"},
		{"silent member", moving(admin.KindSet), func(m *move, _, _ *evidence.Evidence) {
			m.to.member.fresh, m.to.member.age = false, 20*time.Second
		}, []string{"member" + insist}, "not heard for 20s"},
		{"no role", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.Role = nil }, []string{"role" + insist}, "holds no role"},
		{"a former one", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.Role.State, to.Role.Former, to.Role.Opened = evidence.Closed, true, "0.2.ns1"
		}, []string{"role" + insist}, "was the camaster under 0.2.ns1 and is closed: `puppetsrvctl rejoin m3.example.net`"},
		{"one with a damaged record", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.Role.State, to.Role.Reason = evidence.Closed, "the record of the role is damaged"
		}, []string{"role" + insist}, "is closed under 0.4.ns1, and follows nobody: the record of the role is damaged"},
		{"a failing one", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.Role.State, to.Role.Reason = evidence.Failed, "ca: no space"
		}, []string{"role" + insist}, "fails: ca: no space"},
		{"one that waits", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.Role.State, to.Role.Waits = evidence.Waiting, []string{"ns2"}
		}, nil, "it opens all the same, because the write is for this very start of it"},
		{"one that waits, unknown start", moving(admin.KindFailover), func(m *move, _, to *evidence.Evidence) {
			to.Role.State, to.Role.Waits, m.to.member.boot = evidence.Waiting, []string{"ns2"}, 0
		}, []string{"role" + insist}, "waits for ns2"},
		{"one that closes", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.Role.State = evidence.Closing }, []string{"role" + insist}, "is closing under"},

		// The CA.
		{"no CA", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.CA = nil }, []string{"CA set" + insist}, "knows no CA"},
		{"no CA on either", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) { from.CA, to.CA = nil, nil }, nil, ""},
		{"a partial set", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.CA.Complete, to.CA.Problem = false, "ca_key.pem is missing"
		}, []string{"CA set" + insist}, "not complete: ca_key.pem is missing"},
		{"a partial set, set", moving(admin.KindSet), func(_ *move, _, to *evidence.Evidence) { to.CA.Complete = false }, []string{"CA set" + insist}, ""},
		{"a stale set", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) {
			from.CA.Hash, from.CA.Serial, to.CA.Synced, to.CA.Error = "h2", "0B", before(time.Minute), "connection refused"
		}, []string{"CA in step" + loss}, "(next serial 0A, there 0B): what was signed and revoked since is lost; it was last the same 1m0s ago; connection refused"},
		{"a newer set", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) { from.CA.Hash, from.CA.Serial = "h0", "09" }, nil, "newer than what m1.example.net said last"},
		{"a newer CRL", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) { from.CA.Hash, from.CA.CRL.Number = "h0", "4" }, nil, "newer than"},
		{"a newer serial, an older CRL", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) {
			from.CA.Hash, from.CA.Serial, from.CA.CRL.Number = "h0", "09", "6"
		}, []string{"CA in step" + loss}, ""},
		{"another set of the same age", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) { from.CA.Hash = "h0" }, []string{"CA in step" + loss}, ""},
		{"an unknown camaster's set", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.from.member = nil }, []string{"CA in step" + loss}, "nothing is known of the CA on m1.example.net"},
		{"serial numbers are hexadecimal", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) {
			from.CA.Hash, from.CA.Serial, to.CA.Serial = "h0", "FF", "0100"
		}, nil, "newer than"},
		{"switchover follows", moving(admin.KindSwitchover), func(_ *move, from, to *evidence.Evidence) { from.CA.Hash, from.CA.Serial = "h2", "0B" }, nil, "it follows m1.example.net"},
		{"switchover does not follow", moving(admin.KindSwitchover), func(_ *move, from, to *evidence.Evidence) {
			from.CA.Hash, from.CA.Serial, to.CA.Error = "h2", "0B", "403"
		}, []string{"CA in step" + insist}, "the handover would wait for it: 403"},

		// The database.
		{"no database", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL = nil }, []string{"database" + insist}, "knows no PostgreSQL, and m1.example.net has one"},
		{"no database on either", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) { from.PostgreSQL, to.PostgreSQL = nil, nil }, nil, ""},
		{"a primary", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.Role = "primary" }, []string{"database" + insist}, "another history"},
		{"stopped", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.PostgreSQL.Role, to.PostgreSQL.Error = "stopped", "no such file"
		}, []string{"database" + insist}, "is stopped, no such file: it has to run"},
		{"another system", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.System = "8" }, []string{"database" + insist}, "system identifier 8, on m1.example.net 7"},
		{"an older timeline", moving(admin.KindFailover), func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL.Timeline = 2 }, []string{"database" + insist}, "on timeline 1, and m1.example.net was on 2"},
		{"lag as allowed", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.Received = 4000 }, nil, "1000 bytes behind, of 1000 at most; it had everything 3s ago"},
		{"lag", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.Received = 3999 }, []string{"replication" + loss}, "is 1001 bytes behind: more than max_lag, 1000"},
		{"lag that the camaster told of", moving(admin.KindFailover), func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL.Written = 7000 }, []string{"replication" + loss}, "is 2000 bytes behind"},
		{"lag is not known", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) {
			to.PostgreSQL.PrimaryWritten, from.PostgreSQL.Written = 0, 0
		}, []string{"replication" + loss}, "never heard of its primary"},
		{"lag, set", moving(admin.KindSet), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.Received = 3000 }, []string{"replication" + loss}, ""},
		{"lag, switchover", moving(admin.KindSwitchover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.Received = 3000 }, []string{"replication" + insist}, "2000 bytes behind, and the handover would wait"},
		{"cut off, switchover", moving(admin.KindSwitchover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.Streaming = false }, []string{"replication" + insist}, "not connected to its primary"},
		{"cut off, failover", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL.Streaming = false }, nil, ""},

		// PuppetDB, CRLs, code.
		{"no PuppetDB", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PuppetDB = nil }, []string{"PuppetDB" + insist}, "knows no PuppetDB"},
		{"hot and starting", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.PuppetDB.State = "starting" }, []string{"PuppetDB" + insist}, "is starting"},
		{"stopped until then", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.PuppetDB = &evidence.PuppetDB{Mode: "service", State: "stopped"}
		}, nil, "stopped (service)"},
		{"in error", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) {
			to.PuppetDB = &evidence.PuppetDB{Mode: "service", State: "error", Error: "no disk"}
		}, []string{"PuppetDB" + insist}, "no disk"},
		{"CRL expired", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.CRL.NextUpdate = noon }, []string{"CRL" + insist}, "the CRL of m3.example.net has expired at 2026-11-22T12:00:00Z"},
		{"the CA's CRL expired", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.CA.CRL.NextUpdate = before(time.Hour) }, []string{"CRL" + insist}, "the CA's CRL on m3.example.net"},
		{"CRL unreadable", moving(admin.KindFailover), func(_ *move, _, to *evidence.Evidence) { to.CRL.Error = "no such file" }, []string{"CRL warning"}, "no such file"},
		{"other code", moving(admin.KindFailover), func(_ *move, from, to *evidence.Evidence) {
			to.Code = []evidence.Environment{{Name: "production", Revision: "2222222222222222"}, {Name: "test"}}
			from.Code = append(from.Code, evidence.Environment{Name: "stage", Revision: "3"})
		}, []string{"code warning"}, "production has 222222222222 here, 111111111111 there; test is here only; stage is there only"},

		// The camaster that a plain set replaces.
		{"set, its member is dead", moving(admin.KindSet), func(m *move, _, _ *evidence.Evidence) { m.from.verdict.Down, m.from.member.fresh = false, false }, []string{"camaster closes" + insist}, "start that, or stop the host"},
		{"set, no member is known", moving(admin.KindSet), func(m *move, _, _ *evidence.Evidence) { m.from.verdict.Down, m.from.member = false, nil }, []string{"camaster closes" + insist, "CA in step" + loss}, "no member is known that would close it"},
		{"set, it is down", moving(admin.KindSet), func(m *move, _, _ *evidence.Evidence) { m.from.verdict.Down, m.from.member.fresh = true, false }, nil, "m1.example.net is not up"},

		// The camaster of a failover.
		{"it is up", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.from.verdict.Down, m.from.member.fresh = false, true }, []string{"camaster lost waits" + insist}, "use `puppetsrvctl switchover --to m3.example.net`, which loses nothing"},
		{"it is up, its member is dead", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.from.verdict.Down = false }, []string{"camaster lost waits" + insist}, "is up, and its member, which would close it, is dead"},
		{"it is up without a member", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.from.verdict.Down, m.from.member = false, nil }, []string{"camaster lost waits" + insist, "CA in step" + loss}, "no member is known that would close it"},
		{"it is down, its member is alive", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.from.member.fresh = true }, nil, "its member is alive and closes it, so `switchover` may do too"},
		{"nobody looks, its member is dead", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.looked, m.from.verdict.Down = false, false }, nil, "nothing is heard of m1.example.net"},
		{"nobody looks, its member is alive", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) {
			m.looked, m.from.verdict.Down, m.from.member.fresh = false, false, true
		}, []string{"camaster lost waits" + insist}, ""},
		{"it is no master any more", moving(admin.KindFailover), func(m *move, _, _ *evidence.Evidence) { m.from = side{host: "m1.example.net"} }, []string{"CA in step" + loss}, "nothing is known of the CA on m1.example.net"},
		{"it is the target", moving(admin.KindFailover), func(m *move, _, to *evidence.Evidence) {
			m.from = m.to
			to.Role.State, to.PostgreSQL.Role = evidence.Waiting, "stopped"
		}, nil, ""},

		// The camaster of a switchover.
		{"its member is dead", moving(admin.KindSwitchover), func(m *move, _, _ *evidence.Evidence) { m.from.member.fresh, m.from.member.state = false, "dead" }, []string{"camaster open" + nothing}, "use `puppetsrvctl failover --to m3.example.net`"},
		{"it has no member", moving(admin.KindSwitchover), func(m *move, _, _ *evidence.Evidence) { m.from.member = nil }, []string{"camaster open" + nothing}, "is not known"},
		{"never set", moving(admin.KindSwitchover), func(m *move, _, _ *evidence.Evidence) { m.version = "0" }, []string{"camaster open" + nothing}, "`puppetsrvctl camaster set m1.example.net` once"},
		{"it is opening", moving(admin.KindSwitchover), func(_ *move, from, _ *evidence.Evidence) {
			from.Role.State, from.Role.Reason = evidence.Opening, "postgresql"
		}, []string{"camaster open waits" + insist}, "is opening under 0.4.ns1: postgresql"},
		{"it is open under an older version", moving(admin.KindSwitchover), func(m *move, _, _ *evidence.Evidence) { m.version = "0.5.ns1" }, []string{"camaster open waits" + insist}, "is open under 0.4.ns1: it should be open under 0.5.ns1"},
		{"another handover", moving(admin.KindSwitchover), func(m *move, _, _ *evidence.Evidence) { m.handover = "m5.example.net" }, []string{"another handover" + nothing}, "hands over to m5.example.net"},
		{"to itself", moving(admin.KindSwitchover), func(m *move, _, _ *evidence.Evidence) { m.from = m.to }, []string{"another host" + nothing}, ""},

		// The end of a handover.
		{"not closed", handing(), func(_ *move, from, _ *evidence.Evidence) { from.Role.State = evidence.Closing }, []string{"camaster closed waits" + insist}, "is closing under 0.5.ns1"},
		{"closed under an older version", handing(), func(_ *move, from, _ *evidence.Evidence) { from.Role.Version = "0.4.ns1" }, []string{"camaster closed waits" + insist}, "is closed under 0.4.ns1"},
		{"one is open", handing(), func(_ *move, from, _ *evidence.Evidence) { from.Role.Services[1].State = "unknown" }, []string{"camaster closed waits" + insist}, "postgresql is unknown"},
		{"it died closed", handing(), func(m *move, _, _ *evidence.Evidence) { m.from.member.fresh = false }, nil, ""},
		{"it died closing", handing(), func(m *move, from, _ *evidence.Evidence) {
			m.from.member.fresh, m.from.member.state, from.Role.State = false, "dead", evidence.Closing
		}, []string{"camaster closed waits" + insist}, "; its member is dead since"},
		{"the CA is not sealed", handing(), func(_ *move, from, _ *evidence.Evidence) { from.CA.Sealed = false }, []string{"CA in step waits" + loss}, "is not sealed yet"},
		{"the CA has more", handing(), func(_ *move, from, _ *evidence.Evidence) { from.CA.Hash = "h2" }, []string{"CA in step waits" + loss}, "does not have all of the CA yet"},
		{"the database runs", handing(), func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL.Role = "primary" }, []string{"replication waits" + loss}, "is not stopped yet: it is a primary"},
		{"the database is fenced", handing(), func(_ *move, from, _ *evidence.Evidence) {
			from.PostgreSQL.Role, from.PostgreSQL.ReadOnly = "primary", true
		}, nil, "m3.example.net has received everything"},
		{"it was killed", handing(), func(_ *move, from, _ *evidence.Evidence) {
			from.PostgreSQL.Written, from.PostgreSQL.Error = 0, "it was not shut down (in production)"
		}, []string{"replication" + loss}, "it is not known whether m3.example.net has everything: PostgreSQL on m1.example.net is stopped, and where its log ends is not known: it was not shut down (in production); once"},
		{"it was started again, and stopped in recovery", handing(), func(_ *move, from, _ *evidence.Evidence) {
			from.PostgreSQL.Written, from.PostgreSQL.Received, from.PostgreSQL.Replayed = 0, 5000, 5000
		}, []string{"replication" + loss}, "where its log ends is not known"},
		{"it was started again", handing(), func(_ *move, from, _ *evidence.Evidence) {
			*from.PostgreSQL = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Received: 5000, Replayed: 5000}
		}, nil, "m3.example.net has received everything"},
		{"it was started again, and the target is ahead", handing(), func(_ *move, from, _ *evidence.Evidence) {
			*from.PostgreSQL = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Received: 4000, Replayed: 4900}
		}, nil, ""},
		{"it was started again, and has more", handing(), func(_ *move, from, _ *evidence.Evidence) {
			*from.PostgreSQL = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Received: 6000, Replayed: 5500}
		}, []string{"replication waits" + loss}, "has yet to receive 1000 bytes of what PostgreSQL on m1.example.net has"},
		{"it was started again, and has replayed more", handing(), func(_ *move, from, _ *evidence.Evidence) {
			*from.PostgreSQL = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Replayed: 6000}
		}, []string{"replication waits" + loss}, "has yet to receive 1000 bytes"},
		{"it was started again, and says nothing yet", handing(), func(_ *move, from, _ *evidence.Evidence) {
			*from.PostgreSQL = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7"}
		}, []string{"replication waits" + loss}, "how far PostgreSQL on m1.example.net has written is not known yet"},
		{"it is starting", handing(), func(_ *move, from, _ *evidence.Evidence) {
			*from.PostgreSQL = evidence.PostgreSQL{Role: "unknown", Error: "the database system is starting up"}
		}, []string{"replication waits" + loss}, "PostgreSQL on m1.example.net is in an unknown state: the database system is starting up"},
		{"nothing is heard of it", handing(), func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL = nil }, []string{"replication waits" + loss}, "nothing is heard of PostgreSQL on m1.example.net"},
		{"fenced, and not all received", handing(), func(_ *move, from, to *evidence.Evidence) {
			from.PostgreSQL.Role, from.PostgreSQL.ReadOnly, from.PostgreSQL.Written = "primary", true, 5001
		}, []string{"replication waits" + loss}, "has yet to receive 1 bytes"},
		{"not all received, the link is cut", handing(), func(m *move, from, to *evidence.Evidence) {
			from.PostgreSQL.Written, m.to.member.came = 5001, m.from.member.came.Add(time.Millisecond)
		}, []string{"replication" + loss}, "has yet to receive 1 bytes"},
		{"not all received, and more comes", handing(), func(m *move, from, to *evidence.Evidence) {
			from.PostgreSQL.Written, m.to.member.came, to.PostgreSQL.Streaming = 5001, m.from.member.came.Add(time.Millisecond), true
		}, []string{"replication waits" + loss}, "has yet to receive 1 bytes"},
		{"it was not closed cleanly", handing(), func(_ *move, from, _ *evidence.Evidence) { from.Role.Unclean = "the host was booted since it was open" }, []string{"camaster closed" + loss}, "is closed under 0.5.ns1, but what it wrote may not all be on m3.example.net: the host was booted since it was open; `puppetsrvctl switchover --abort`"},
		{"it is not closed, nor cleanly", handing(), func(_ *move, from, _ *evidence.Evidence) {
			from.Role.Unclean, from.Role.Services[0].State = "the host was booted since it was open", "open"
		}, []string{"camaster closed waits" + insist}, "on m1.example.net ca is open"},
		{"not all received", handing(), func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL.Written = 5001 }, []string{"replication waits" + loss}, "has yet to receive 1 bytes"},
		{"received before what was last heard", handing(), func(_ *move, from, to *evidence.Evidence) {
			to.PostgreSQL.PrimaryWritten, to.PostgreSQL.Received = 4000, 4999
		}, []string{"replication waits" + loss}, "1 bytes"},
		{"ended by setting the old one", handing(), func(m *move, _, _ *evidence.Evidence) {
			m.kind, m.to = admin.KindSet, m.from
			m.to.drain = "ops (switchover)"
		}, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := test.move
			if test.edit != nil {
				test.edit(m, m.from.member.evidence, m.to.member.evidence)
			}
			var got, said []string
			all := m.conditions()
			for _, c := range all {
				if c.Detail == "" || c.Name == "" || strings.HasSuffix(c.Detail, ": ") || strings.Contains(c.Detail, "%!") {
					t.Errorf("%+v", c)
				}
				if c.OK {
					if c.Passed != "" || c.Waits || c.Warning {
						t.Errorf("%+v", c)
					}
					continue
				}
				line := c.Name
				if c.Waits && (strings.HasPrefix(c.Name, "camaster") || m.handing()) {
					line += " waits"
				}
				switch {
				case c.Warning:
					line += " warning"
				case c.Passed == "":
					line += nothing
				default:
					line += " " + c.Passed
				}
				got = append(got, line)
			}
			for _, c := range all {
				if len(test.want) == 0 || !c.OK {
					said = append(said, c.Detail)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("not met: %q, want %q\n%s", got, test.want, strings.Join(said, "\n"))
			}
			if !strings.Contains(strings.Join(said, "\n"), test.says) {
				t.Errorf("it is not said %q, but\n%s", test.says, strings.Join(said, "\n"))
			}
			refused := slices.ContainsFunc(test.want, func(s string) bool { return !strings.HasSuffix(s, "warning") })
			if p := m.plan(); p.Possible == refused {
				t.Errorf("possible is %v", p.Possible)
			}
		})
	}
}

func TestLoss(t *testing.T) {
	for _, test := range []struct {
		name string
		kind admin.Kind
		edit func(m *move, from, to *evidence.PostgreSQL)
		want admin.Loss
	}{
		{"as heard", admin.KindFailover, nil, admin.Loss{Known: true, Since: before(3 * time.Second), Seconds: 3, Detail: "0 bytes of log are known to be missing; at most what was committed in the last 3.0 s"}},
		{"of a switchover", admin.KindSwitchover, nil, admin.Loss{Known: true, Detail: "nothing: the old camaster is closed first, and the new one waits until it has everything"}},
		{"as the camaster told", admin.KindFailover, func(_ *move, from, _ *evidence.PostgreSQL) { from.Written = 9000 }, admin.Loss{Known: true, Bytes: 4000, Since: before(3 * time.Second), Seconds: 3, Detail: "4000 bytes of log are known to be missing; at most what was committed in the last 3.0 s"}},
		{"a camaster of another system told nothing", admin.KindFailover, func(_ *move, from, _ *evidence.PostgreSQL) { from.Written, from.System = 9000, "8" }, admin.Loss{Known: true, Since: before(3 * time.Second), Seconds: 3, Detail: "0 bytes of log are known to be missing; at most what was committed in the last 3.0 s"}},
		{"as a camaster that was started again has it", admin.KindFailover, func(_ *move, from, _ *evidence.PostgreSQL) {
			*from = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Received: 9000}
		}, admin.Loss{Known: true, Bytes: 4000, Since: before(3 * time.Second), Seconds: 3, Detail: "4000 bytes of log are known to be missing; at most what was committed in the last 3.0 s"}},
		{"as a camaster of an older timeline has it", admin.KindFailover, func(_ *move, from, to *evidence.PostgreSQL) {
			*from, to.Timeline = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Received: 9000}, 2
		}, admin.Loss{Known: true, Since: before(3 * time.Second), Seconds: 3, Detail: "0 bytes of log are known to be missing; at most what was committed in the last 3.0 s"}},
		{"of setting", admin.KindSet, func(_ *move, _, to *evidence.PostgreSQL) { to.Received = 3000 }, admin.Loss{Known: true, Bytes: 2000, Since: before(3 * time.Second), Seconds: 3, Detail: "2000 bytes of log are known to be missing; at most what was committed in the last 3.0 s"}},
		{"of setting what is set", admin.KindSet, func(m *move, _, _ *evidence.PostgreSQL) { m.to = m.from }, admin.Loss{Known: true, Detail: "nothing: it is the camaster already"}},
		// Its clock is ahead by ten seconds: by ours it was current in the future.
		{"a clock ahead", admin.KindFailover, func(m *move, _, to *evidence.PostgreSQL) {
			to.Current, m.to.member.said = noon.Add(7*time.Second), noon.Add(9*time.Second)
		}, admin.Loss{Known: true, Since: noon.Add(7 * time.Second), Seconds: 3, Detail: "0 bytes of log are known to be missing; at most what was committed in the last 3.0 s"}},
		{"never current", admin.KindFailover, func(_ *move, _, to *evidence.PostgreSQL) { to.Current = time.Time{} }, admin.Loss{Detail: "0 bytes of log are known to be missing; since when is not"}},
		{"never heard", admin.KindFailover, func(_ *move, from, to *evidence.PostgreSQL) {
			to.Current, to.PrimaryWritten, from.Written = time.Time{}, 0, 0
		}, admin.Loss{Detail: "not known: the database of m3.example.net has never heard of its primary"}},
		{"no database", admin.KindFailover, func(m *move, _, _ *evidence.PostgreSQL) {
			m.to.member.evidence.PostgreSQL, m.from.member.evidence.PostgreSQL = nil, nil
		}, admin.Loss{Known: true, Detail: "nothing of a database: the members know of none"}},
		{"no database, as far as one member says", admin.KindFailover, func(m *move, _, _ *evidence.PostgreSQL) {
			m.to.member.evidence.PostgreSQL, m.from.member = nil, nil
		}, admin.Loss{Detail: "not known: no member on m3.example.net says anything of a database"}},
		{"no member", admin.KindFailover, func(m *move, _, _ *evidence.PostgreSQL) { m.to.member = nil }, admin.Loss{Detail: "not known: no member on m3.example.net says anything of a database"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := moving(test.kind)
			if test.edit != nil {
				test.edit(m, m.from.postgreSQL(), m.to.postgreSQL())
			}
			if got := m.loss(); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// The end of a handover says what is lost if it is not what it was to be.
func TestHandoverLoss(t *testing.T) {
	const last = "; at most what was committed in the last 3.0 s"
	since := func(known bool, bytes uint64, detail string) admin.Loss {
		return admin.Loss{Known: known, Bytes: bytes, Since: before(3 * time.Second), Seconds: 3, Detail: detail + last}
	}
	for _, test := range []struct {
		name string
		edit func(m *move, from, to *evidence.Evidence)
		want admin.Loss
	}{
		{"all is there", nil, admin.Loss{Known: true, Detail: "nothing: m3.example.net has everything that m1.example.net wrote"}},
		{"no database", func(_ *move, from, to *evidence.Evidence) { from.PostgreSQL, to.PostgreSQL = nil, nil }, admin.Loss{Known: true, Detail: "nothing: m3.example.net has everything that m1.example.net wrote"}},
		{"rows are missing", func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL.Written = 5800 }, since(true, 800, "800 bytes of log are known to be missing")},
		{"rows are missing since nobody knows when", func(_ *move, from, to *evidence.Evidence) {
			from.PostgreSQL.Written, to.PostgreSQL.Current = 5800, time.Time{}
		}, admin.Loss{Bytes: 800, Detail: "800 bytes of log are known to be missing; since when is not"}},
		{"it was started again, and has more", func(_ *move, from, _ *evidence.Evidence) {
			*from.PostgreSQL = evidence.PostgreSQL{Role: "standby", Timeline: 1, System: "7", Received: 6000}
		}, since(true, 1000, "1000 bytes of log are known to be missing")},
		{"it was killed", func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL.Written = 0 },
			since(false, 0, "not known: PostgreSQL on m1.example.net is stopped, and where its log ends is not known; once it is started there, in recovery as it is, it says so")},
		{"it was stopped in recovery, with more", func(_ *move, from, _ *evidence.Evidence) {
			from.PostgreSQL.Written, from.PostgreSQL.Received = 0, 6000
		}, since(false, 1000, "not known: PostgreSQL on m1.example.net is stopped, and where its log ends is not known; once it is started there, in recovery as it is, it says so")},
		{"it is not closed yet", func(_ *move, from, _ *evidence.Evidence) { from.PostgreSQL.Role = "primary" }, admin.Loss{Detail: "not known yet: PostgreSQL on m1.example.net is not stopped yet: it is a primary"}},
		{"not closed cleanly", func(_ *move, from, _ *evidence.Evidence) { from.Role.Unclean = "the host was booted since it was open" },
			since(false, 0, "not known: what was closed on m1.example.net may not all be on m3.example.net: the host was booted since it was open")},
		{"the CA has more", func(_ *move, from, _ *evidence.Evidence) { from.CA.Hash = "h2" }, admin.Loss{Known: true, Detail: "nothing of the database; of the CA what is missing: m3.example.net does not have all of the CA yet"}},
		{"no database on the target", func(_ *move, _, to *evidence.Evidence) { to.PostgreSQL = nil }, admin.Loss{Detail: "not known: the members on m1.example.net and m3.example.net do not both say what they have"}},
		{"no member any more", func(m *move, _, _ *evidence.Evidence) { m.from.member = nil }, admin.Loss{Detail: "not known: the members on m1.example.net and m3.example.net do not both say what they have"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := handing()
			if test.edit != nil {
				test.edit(m, m.from.member.evidence, m.to.member.evidence)
			}
			if got := m.loss(); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			// What is lost is not "nothing" where a loss had to be accepted.
			set := admin.SetCamaster{AcceptDataLoss: true}
			if accepted := m.accepted(&set); strings.HasPrefix(accepted, "nothing:") {
				t.Errorf("accepted is %q", accepted)
			}
		})
	}
}

func TestPlanSteps(t *testing.T) {
	steps := func(m *move) (all []string) {
		for _, s := range m.plan().Steps {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%.2s %s %s", s.Host, s.Service, s.Name)))
		}
		return all
	}
	for _, test := range []struct {
		name string
		move *move
		want []string
	}{
		{"failover", moving(admin.KindFailover), []string{"write", "DNS", "m3 ca open", "m3 postgresql open", "m1  close"}},
		{"switchover", moving(admin.KindSwitchover), []string{"m1  drain", "write", "m1 postgresql close", "m1 ca close", "m3  wait", "write", "DNS", "m3 ca open", "m3 postgresql open", "m1  standby", "m1  undrain"}},
		{"handed over", handing(), []string{"m1 postgresql close", "m1 ca close", "m3  wait", "write", "DNS", "m3 ca open", "m3 postgresql open", "m1  standby", "m1  undrain"}},
	} {
		if got := steps(test.move); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// What insists passes over what it is for; plain setting has force alone.
func TestRefusals(t *testing.T) {
	behind := func(kind admin.Kind) *move {
		m := moving(kind)
		m.to.ca = false
		m.to.postgreSQL().Received = 0
		return m
	}
	for _, test := range []struct {
		kind           admin.Kind
		accepts, force bool
		want           int
	}{
		{admin.KindSet, false, false, 2}, {admin.KindSet, true, false, 1}, {admin.KindSet, false, true, 0},
		{admin.KindFailover, false, false, 2}, {admin.KindFailover, true, false, 1}, {admin.KindFailover, false, true, 1}, {admin.KindFailover, true, true, 0},
	} {
		set := admin.SetCamaster{AcceptDataLoss: test.accepts, Force: test.force}
		m := behind(test.kind)
		if got := m.refusals(&set); len(got) != test.want {
			t.Errorf("%+v: %q", test, got)
		}
		if got := m.accepted(&set) != ""; got != test.accepts {
			t.Errorf("%+v: accepted is %v", test, got)
		}
	}
	if got := moving(admin.KindFailover).accepted(&admin.SetCamaster{AcceptDataLoss: true}); got != "" {
		t.Errorf("where nothing is in the way, %q was accepted", got)
	}
}
