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
	masterUp      = desc("master_up", "1 if this node's own verdict on the master is up, 0 if it is down.", "master", "datacenter")
	masterDrained = desc("master_drained", "1 if the master is drained.", "master", "datacenter")
	mastersDown   = desc("masters_down", "Masters that are down in the eyes of a datacenter.", "datacenter")
	camasterInfo  = desc("camaster_info", "1 for the master that is served as camaster.", "master")
	masterLeftOut = desc("master_certificate_failing", "1 if the master is down because its certificate fails, and therefore left out.", "master", "datacenter")
	evidenceAge   = desc("evidence_age_seconds", "Age of the newest observation of the master; absent before the first.", "master", "datacenter")
	certExpiry    = desc("certificate_expiry_timestamp_seconds", "When the certificate that the master presented last expires.", "master", "datacenter")
	zoneSerial    = desc("zone_serial", "SOA serial of the rendered zone.")
	stateDurable  = desc("state_durable", "1 if what must survive a restart is on disk, 0 if it could not be written.")

	members     = desc("members", "Members of the cluster by state: alive, dead, left.", "state")
	disagreeing = desc("nodes_disagreeing", "Live nodes whose zones or camaster are not those of this one.")
	isolated    = desc("isolated", "1 if this node reaches no master while others do, and its verdicts do not count.")
	observerAge = desc("observer_age_seconds", "Time since another node was heard of.", "observer")
	conflicts   = desc("register_conflicts_total", "Writes of registers that won over one which their writer did not know.")
	refused     = desc("refused_total", "What was refused of what came by gossip, by kind.", "kind")
	dropped     = desc("gossip_dropped_total", "Messages that were dropped for a full queue.")
	queue       = desc("gossip_queue_messages", "Messages that wait to be handled.")
	healthScore = desc("gossip_health_score", "How late this node is with its own answers, as memberlist sees it; 0 is well.")
	crlUpdate   = desc("crl_next_update_timestamp_seconds", "When the CRL is due to be replaced; absent if none is looked at.")
)

var descs = []*prometheus.Desc{
	masterUp, masterLeftOut, masterDrained, mastersDown, camasterInfo, evidenceAge, certExpiry, zoneSerial, stateDurable,
	members, disagreeing, isolated, observerAge, conflicts, refused, dropped, queue, healthScore, crlUpdate,
}

// Describe implements prometheus.Collector.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector. During a reload two runtimes may serve
// the same zone; the newest speaks for it.
func (statusCollector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	for _, n := range node.All() {
		s := n.Status()
		for origin, serial := range s.Serials {
			if !seen["serial "+origin] {
				seen["serial "+origin] = true
				gauge(ch, zoneSerial, float64(serial), origin)
			}
		}
		if seen[s.Name] {
			continue
		}
		seen[s.Name] = true
		collectMasters(ch, &s)
		if s.Cluster != nil {
			collectCluster(ch, s.Name, s.Cluster)
		}
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func collectMasters(ch chan<- prometheus.Metric, s *node.Status) {
	gauge(ch, stateDurable, bit(s.Durable == nil), s.Name)
	gauge(ch, camasterInfo, 1, s.Name, strings.TrimSuffix(s.Camaster, "."))
	for dc, n := range s.Down {
		gauge(ch, mastersDown, float64(n), s.Name, dc)
	}
	for _, m := range s.Masters {
		labels := []string{s.Name, strings.TrimSuffix(m.Host, "."), m.Datacenter}
		gauge(ch, masterUp, bit(!m.Verdict.Down), labels...)
		gauge(ch, masterLeftOut, bit(m.Verdict.CertificateFails()), labels...)
		gauge(ch, masterDrained, bit(m.Drained), labels...)
		if m.Observed {
			gauge(ch, evidenceAge, m.Age.Seconds(), labels...)
		}
		if m.Certificate != nil {
			gauge(ch, certExpiry, float64(m.Certificate.NotAfter.Unix()), labels...)
		}
	}
}

func collectCluster(ch chan<- prometheus.Metric, zone string, c *node.ClusterStatus) {
	for state, n := range c.Members {
		gauge(ch, members, float64(n), zone, state)
	}
	for observer, age := range c.ObserverAge {
		gauge(ch, observerAge, age.Seconds(), zone, observer)
	}
	for kind, n := range c.Refused {
		counter(ch, refused, n, zone, kind)
	}
	gauge(ch, disagreeing, float64(c.Disagreeing), zone)
	gauge(ch, isolated, bit(c.Isolated), zone)
	counter(ch, conflicts, c.Conflicts, zone)
	counter(ch, dropped, c.Dropped, zone)
	gauge(ch, queue, float64(c.Queue), zone)
	gauge(ch, healthScore, float64(c.Health), zone)
	if !c.CRL.IsZero() {
		gauge(ch, crlUpdate, float64(c.CRL.Unix()), zone)
	}
}
