package gather

import (
	"math/big"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("puppetsrv", "member", name), help, labels, nil)
}

// The metrics. Times are told as ages where a clock of the host measures them, and as
// timestamps where a certificate has them.
var (
	evidenceAge = desc("evidence_age_seconds", "Age of the newest look at the host.")
	lookLate    = desc("look_late", "1 while a part of the host is looked at for longer than it may take.", "part")

	puppetserverUp = desc("puppetserver_up", "1 if puppetserver's status is running.")
	caService      = desc("puppetserver_ca_service", "1 if puppetserver's CA service is on; a sealed one is on too.")
	compiles       = desc("puppetserver_compiles", "1 if the last deep check, a node request through a JRuby, succeeded.")
	jrubies        = desc("puppetserver_jrubies", "JRubies of the pool.")
	jrubiesFree    = desc("puppetserver_jrubies_free", "JRubies that are free, smoothed.")

	certificateEnd = desc("certificate_expiry_timestamp_seconds", "When the host's certificate expires.")
	crlEnd         = desc("crl_next_update_timestamp_seconds", "When the host's CRL expires, and with it every connection to puppetserver.")
	crlAge         = desc("crl_age_seconds", "Time since the host's CRL was signed.")
	crlNumber      = desc("crl_number", "Number of the host's CRL.")
	partFailing    = desc("part_failing", "1 if a part of the host could not be looked at.", "part")

	caSealed   = desc("ca_sealed", "1 while nothing can be signed here.")
	caComplete = desc("ca_complete", "1 if the CA's files are whole and verified.")
	caSigned   = desc("ca_signed_certificates", "Certificates in the CA's signed directory.")
	caSyncAge  = desc("ca_sync_age_seconds", "Time since this copy of the CA was last the same as the camaster's.")
	caCRLEnd   = desc("ca_crl_next_update_timestamp_seconds", "When the CA's own CRL expires.")

	pgRole      = desc("postgresql_role", "1 for the database's role: primary, standby, stopped, unknown.", "role")
	pgReadOnly  = desc("postgresql_read_only", "1 while a primary is fenced.")
	pgTimeline  = desc("postgresql_timeline", "Timeline of the database.")
	pgStreaming = desc("postgresql_streaming", "1 while a standby receives from its primary.")
	pgLagBytes  = desc("postgresql_lag_bytes", "Bytes of the primary's log that a standby is known not to have received.")
	pgLagTime   = desc("postgresql_lag_seconds", "Time since a standby last had all that its primary was known to have written.")

	puppetdbUp     = desc("puppetdb_up", "1 if PuppetDB's status is running.")
	puppetdbWrites = desc("puppetdb_writes", "1 if what PuppetDB is sent can be stored here.")
	puppetdbQueue  = desc("puppetdb_queue_commands", "Commands that wait in PuppetDB.")

	roleState    = desc("role_state", "1 for the role's state: waiting, open, opening, closing, closed, standby, failed.", "state")
	roleFormer   = desc("role_former", "1 on a former camaster that has not rejoined.")
	serviceState = desc("service_state", "1 for a service's state: open, standby, closed, unknown.", "service", "state")
)

var descs = []*prometheus.Desc{
	evidenceAge, lookLate, puppetserverUp, caService, compiles, jrubies, jrubiesFree, certificateEnd, crlEnd, crlAge,
	crlNumber, partFailing, caSealed, caComplete, caSigned, caSyncAge, caCRLEnd, pgRole, pgReadOnly, pgTimeline,
	pgStreaming, pgLagBytes, pgLagTime, puppetdbUp, puppetdbWrites, puppetdbQueue, roleState, roleFormer, serviceState,
}

// Words that labels may have. A label with a value of its own for every mistake would
// make a series of each.
var (
	pgRoles       = []string{"primary", "standby", "stopped", "unknown"}
	roleStates    = []string{evidence.Waiting, evidence.Open, evidence.Opening, evidence.Closing, evidence.Closed, evidence.Standby, evidence.Failed}
	serviceStates = []string{"open", "standby", "closed", "unknown"}
)

// collector tells what was seen last. What does not exist on a host has no metric.
type collector struct {
	last func() (e evidence.Evidence, at time.Time, late map[string]bool)
}

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	e, at, late := c.last()
	if at.IsZero() { // it has not looked yet, and knows nothing
		return
	}
	m := metrics{ch, time.Now()}
	m.age(evidenceAge, at)
	for _, p := range []struct {
		name   string
		there  bool
		failed string
	}{
		{"puppetserver", e.Puppetserver.State != "", unreachable(e.Puppetserver)},
		{"code", e.Code != nil || late["code"], ""},
		{"certificate", e.Certificate != nil, errorOf(e.Certificate, func(c *evidence.Certificate) string { return c.Error })},
		{"crl", e.CRL != nil, errorOf(e.CRL, func(c *evidence.CRL) string { return c.Error })},
		{"ca", e.CA != nil, errorOf(e.CA, func(c *evidence.CA) string { return c.Error })},
		{"postgresql", e.PostgreSQL != nil, errorOf(e.PostgreSQL, func(p *evidence.PostgreSQL) string { return p.Error })},
		{"puppetdb", e.PuppetDB != nil, errorOf(e.PuppetDB, func(p *evidence.PuppetDB) string { return p.Error })},
	} {
		if p.there {
			m.flag(lookLate, late[p.name], p.name)
			m.flag(partFailing, p.failed != "" || late[p.name], p.name)
		}
	}
	m.puppetserver(e.Puppetserver)
	if c := e.Certificate; c != nil {
		m.moment(certificateEnd, c.NotAfter)
	}
	if c := e.CRL; c != nil {
		m.moment(crlEnd, c.NextUpdate)
		m.age(crlAge, c.ThisUpdate)
		if n, ok := new(big.Float).SetString(c.Number); ok {
			f, _ := n.Float64()
			m.value(crlNumber, f)
		}
	}
	m.ca(e.CA)
	m.postgresql(e.PostgreSQL)
	if p := e.PuppetDB; p != nil {
		m.flag(puppetdbUp, p.State == "running")
		m.flag(puppetdbWrites, p.Writes)
		m.value(puppetdbQueue, float64(p.Queue))
	}
	if r := e.Role; r != nil {
		m.oneOf(roleState, r.State, roleStates)
		m.flag(roleFormer, r.Former)
		for _, s := range r.Services {
			m.oneOf(serviceState, s.State, serviceStates, s.Name)
		}
	}
}

func unreachable(p evidence.Puppetserver) string {
	if p.State != "unreachable" {
		return ""
	}
	return p.State
}

func errorOf[T any](p *T, of func(*T) string) string {
	if p == nil {
		return ""
	}
	return of(p)
}

// metrics sends them.
type metrics struct {
	ch  chan<- prometheus.Metric
	now time.Time
}

func (m metrics) value(d *prometheus.Desc, v float64, labels ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m metrics) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	m.value(d, v, labels...)
}

func (m metrics) oneOf(d *prometheus.Desc, is string, words []string, labels ...string) {
	for _, w := range words {
		m.flag(d, w == is, append(labels[:len(labels):len(labels)], w)...)
	}
}

// moment and age leave out what is not known.
func (m metrics) moment(d *prometheus.Desc, t time.Time) {
	if !t.IsZero() {
		m.value(d, float64(t.UnixMilli())/1000)
	}
}

func (m metrics) age(d *prometheus.Desc, t time.Time) {
	if !t.IsZero() {
		m.value(d, max(0, m.now.Sub(t).Seconds()))
	}
}

func (m metrics) puppetserver(p evidence.Puppetserver) {
	if p.State == "" {
		return
	}
	m.flag(puppetserverUp, p.State == "running")
	m.flag(caService, p.CAService)
	if p.Compiles != nil {
		m.flag(compiles, *p.Compiles)
	}
	if p.JRubies > 0 {
		m.value(jrubies, float64(p.JRubies))
		m.value(jrubiesFree, float64(p.JRubiesFree))
	}
}

func (m metrics) ca(c *evidence.CA) {
	if c == nil {
		return
	}
	m.flag(caSealed, c.Sealed)
	m.flag(caComplete, c.Complete)
	m.value(caSigned, float64(c.Signed))
	m.age(caSyncAge, c.Synced)
	if c.CRL != nil {
		m.moment(caCRLEnd, c.CRL.NextUpdate)
	}
}

func (m metrics) postgresql(p *evidence.PostgreSQL) {
	if p == nil {
		return
	}
	m.oneOf(pgRole, p.Role, pgRoles)
	m.flag(pgReadOnly, p.ReadOnly)
	if p.Timeline > 0 {
		m.value(pgTimeline, float64(p.Timeline))
	}
	if p.Role == "standby" {
		m.flag(pgStreaming, p.Streaming)
		if lag, known := p.Lag(); known {
			m.value(pgLagBytes, float64(lag))
		}
		m.age(pgLagTime, p.Current)
	}
}
