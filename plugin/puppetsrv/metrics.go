package puppetsrv

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Counters and histograms, counted where things happen.
var (
	answersTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "answers_total",
		Help: "Answers by kind: tiers, ca, camaster and address are prebuilt, static is everything else in the zones.",
	}, []string{"server", "kind"})
	shortenedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "answers_shortened_total",
		Help: "Answers that lost targets of the last tiers to fit the client's buffer.",
	}, []string{"server"})
	probeDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "probe_duration_seconds",
		Help: "Duration of probes.", Buckets: plugin.SlimTimeBuckets, NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	}, []string{"zone"})
	probeFailures = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "probe_failures_total",
		Help: "Failed probes by reason.",
	}, []string{"zone", "reason"})
	buildDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "snapshot_build_duration_seconds",
		Help: "Duration from a change to the published snapshot; its count is the number of snapshots.", Buckets: plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	}, []string{"zone"})
)

func init() { prometheus.MustRegister(statusCollector{}) }

// hooks returns what a runtime calls to be counted.
func hooks(zone string) node.Hooks {
	duration, built := probeDuration.WithLabelValues(zone), buildDuration.WithLabelValues(zone)
	failures := make(map[health.Reason]prometheus.Counter, len(health.Reasons))
	for _, r := range health.Reasons {
		failures[r] = probeFailures.WithLabelValues(zone, string(r))
	}
	return node.Hooks{
		Probed: func(o health.Observation) {
			duration.Observe(o.Duration.Seconds())
			if !o.OK() {
				failures[o.Reason].Inc()
			}
		},
		Built: func(d time.Duration) { built.Observe(d.Seconds()) },
	}
}

// counts are the counters of the answers, looked up once per server: doing that
// for every answer would cost a tenth of it.
type counts struct {
	servers sync.Map // *dnsserver.Server -> *serverCounts
}

type serverCounts struct {
	kinds              []prometheus.Counter // by zone.Kind
	staticN, shortened prometheus.Counter
}

// of returns the counters of the server that ctx came through, whose label is
// what metrics.WithServer returns.
func (c *counts) of(ctx context.Context) *serverCounts {
	server, _ := ctx.Value(dnsserver.Key{}).(*dnsserver.Server)
	if v, ok := c.servers.Load(server); ok {
		return v.(*serverCounts)
	}
	addr := ""
	if server != nil {
		addr = server.Addr
	}
	s := &serverCounts{
		staticN:   answersTotal.WithLabelValues(addr, "static"),
		shortened: shortenedTotal.WithLabelValues(addr),
	}
	for _, kind := range zone.Kinds {
		s.kinds = append(s.kinds, answersTotal.WithLabelValues(addr, kind))
	}
	c.servers.Store(server, s)
	return s
}

func (c *counts) prebuilt(ctx context.Context, kind zone.Kind, cut bool) {
	s := c.of(ctx)
	s.kinds[kind].Inc()
	if cut {
		s.shortened.Inc()
	}
}

func (c *counts) static(ctx context.Context) { c.of(ctx).staticN.Inc() }

// statusCollector reads what the runtimes believe when it is asked, so that
// nothing is left behind by masters and runtimes that are gone.
type statusCollector struct{}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, name), help, append([]string{"zone"}, labels...), nil)
}

var (
	masterUp      = desc("master_up", "1 if the verdict on the master is up, 0 if it is down.", "master", "datacenter")
	masterLeftOut = desc("master_certificate_failing", "1 if the master is down because its certificate fails, and therefore left out.", "master", "datacenter")
	evidenceAge   = desc("evidence_age_seconds", "Age of the newest observation of the master; absent before the first.", "master", "datacenter")
	certExpiry    = desc("certificate_expiry_timestamp_seconds", "When the certificate that the master presented last expires.", "master", "datacenter")
	zoneSerial    = desc("zone_serial", "SOA serial of the rendered zone.")
	stateDurable  = desc("state_durable", "1 if what must survive a restart is on disk, 0 if it could not be written.")
)

// Describe implements prometheus.Collector.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{masterUp, masterLeftOut, evidenceAge, certExpiry, zoneSerial, stateDurable} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. During a reload two runtimes may serve
// the same zone; the newest speaks for it.
func (statusCollector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	bit := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, n := range node.All() {
		s := n.Status()
		for origin, serial := range s.Serials {
			if !seen["serial "+origin] {
				seen["serial "+origin] = true
				gauge(zoneSerial, float64(serial), origin)
			}
		}
		if seen[s.Name] {
			continue
		}
		seen[s.Name] = true
		gauge(stateDurable, bit(s.Durable == nil), s.Name)
		for _, m := range s.Masters {
			labels := []string{s.Name, strings.TrimSuffix(m.Host, "."), m.Datacenter}
			gauge(masterUp, bit(!m.Verdict.Down), labels...)
			gauge(masterLeftOut, bit(m.Verdict.CertificateFails()), labels...)
			if m.Observed {
				gauge(evidenceAge, m.Age.Seconds(), labels...)
			}
			if m.Certificate != nil {
				gauge(certExpiry, float64(m.Certificate.NotAfter.Unix()), labels...)
			}
		}
	}
}
