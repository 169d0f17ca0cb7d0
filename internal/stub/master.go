package stub

import (
	"fmt"
	"io"
	"net/http"
)

// Master is a stub Puppet server. It answers GET /status/v1/simple as
// trapperkeeper's status service does, over HTTPS with keep-alive, and what its
// options say; 404 to everything else. All methods are safe for concurrent use.
type Master struct {
	server
	cadir   *CADir
	hostCRL *hostCRL
	caCfg   string

	// Guarded by server.mu.
	ca             bool
	jrubies, free  int
	compileFailure string
}

// MasterOption is what a master has beyond its status service.
type MasterOption func(*Master)

// WithCADir makes the master a CA with its files in a directory, as NewCADir makes
// it; its CA service is on unless WithCACfg says otherwise. It signs every request at
// once (`autosign = true`).
//
// The directory may be empty, and is served from as soon as it has the files; until then
// every request gets an error. The real one would make a new CA there: nobody wants that.
func WithCADir(path string) MasterOption {
	return func(m *Master) { m.cadir = OpenCADir(path) }
}

// WithCACfg has services.d/ca.cfg say whether the CA service is on. It is read at the
// start and never again, as the real one does.
func WithCACfg(path string) MasterOption {
	return func(m *Master) { m.caCfg = path }
}

// WithHostCRL has the master refuse clients whose certificate is not of the CA
// (localcacert) or is in its own copy of the CRL (hostcrl), which is read again whenever
// it has changed. Where the CA service is on, ca_crl.pem is copied there at the start and
// whenever it has changed.
func WithHostCRL(localCACert, hostCRLFile string) MasterOption {
	return func(m *Master) { m.hostCRL = &hostCRL{caFile: localCACert, crlFile: hostCRLFile} }
}

// NewMaster listens on addr (host:port, where port 0 means any free port) and
// serves with the given identity until Close.
func NewMaster(addr string, id *Identity, options ...MasterOption) (*Master, error) {
	m := &Master{jrubies: 4, free: 4}
	for _, option := range options {
		option(m)
	}
	if err := m.startCA(); err != nil {
		return nil, fmt.Errorf("starting a master: %w", err)
	}
	if m.hostCRL == nil && m.cadir != nil {
		m.hostCRL = &hostCRL{caFile: m.cadir.path(caCertName)}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status/v1/simple/ca", m.serveCAStatus)
	mux.HandleFunc("GET /status/v1/services/jruby-metrics", m.serveJRubies)
	mux.HandleFunc("GET /puppet/v3/node/{name}", m.serveNode)
	if m.cadir != nil {
		mux.HandleFunc("/puppet-ca/v1/", m.serveCA)
	}
	if err := m.start(addr, id, mux, m.hostCRL.verify); err != nil {
		return nil, fmt.Errorf("starting a master: %w", err)
	}
	if m.cadir != nil && m.hostCRL.crlFile != "" {
		m.serving.Go(m.copyCRLs)
	}
	return m, nil
}

// startCA finds whether the CA service is on, and whether puppetserver would start
// with these files.
func (m *Master) startCA() error {
	m.ca = m.cadir != nil
	if m.caCfg != "" {
		on, err := readCACfg(m.caCfg)
		if err != nil {
			return err
		}
		m.ca = on
	}
	if m.ca && m.cadir != nil {
		return m.cadir.check()
	}
	return nil
}

// SetCA says whether the CA service is on: /status/v1/simple/ca is then 200
// "running", else 404, as is everything of the CA. At the start it is off, but with
// WithCADir.
func (m *Master) SetCA(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ca = on
}

func (m *Master) caIsOn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ca
}

// SetJRubies sets how many JRuby instances there are and how many of them are free;
// at the start 4 of 4.
func (m *Master) SetJRubies(total, free int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jrubies, m.free = total, free
}

// SetCompileFailure makes the deep check fail with a message; with "" it succeeds, as at
// the start. The status service goes on saying that all is well, as the real one does.
func (m *Master) SetCompileFailure(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.compileFailure = message
}

func (m *Master) serveCAStatus(w http.ResponseWriter, _ *http.Request) {
	if m.caIsOn() {
		answer(w, http.StatusOK, "running")
	} else {
		answer(w, http.StatusNotFound, "not found: ca")
	}
}

// serveJRubies answers in the form of puppetserver's jruby-metrics service, whose
// numbers are there at level=debug alone.
func (m *Master) serveJRubies(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	total, free := m.jrubies, m.free
	m.mu.Unlock()
	level, status := "info", "{}"
	if r.URL.Query().Get("level") == "debug" {
		level = "debug"
		status = fmt.Sprintf(`{"experimental":{"jruby-pool-lock-status":{"current-state":"not-in-use"},`+
			`"metrics":{"average-free-jrubies":%d.25,"borrowed-instances":[],"num-free-jrubies":%d,"num-jrubies":%d}}}`, free, free, total)
	}
	answerJSON(w, http.StatusOK, fmt.Sprintf(`{"service_version":"7.9.5","service_status_version":1,"detail_level":%q,"state":"running",`+
		`"service_name":"jruby-metrics","status":%s,"active_alerts":[]}`, level, status))
}

// serveNode is the deep check. auth.conf lets a node ask for itself alone.
func (m *Master) serveNode(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if client := m.client(r); client == nil || client.Subject.CommonName != name {
		forbid(w, r)
		return
	}
	m.mu.Lock()
	failure := m.compileFailure
	m.mu.Unlock()
	if failure != "" {
		answerJSON(w, http.StatusInternalServerError, fmt.Sprintf(`{"message":%q,"issue_kind":"RUNTIME_ERROR"}`, "Server Error: "+failure))
		return
	}
	answerJSON(w, http.StatusOK, fmt.Sprintf(`{"name":%q,"parameters":{},"classes":{},"environment":"production"}`, name))
}

// forbid refuses as auth.conf does.
func forbid(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusForbidden, fmt.Sprintf("Forbidden request: %s (method :%s). Please see the server logs for details.", r.URL.Path, r.Method))
}

func answerJSON(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // a client that has left is no error here
}
