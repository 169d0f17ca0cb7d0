package stub

import (
	"fmt"
	"net/http"
)

// PuppetDB is a stub PuppetDB: its status, and nothing to query. All methods are safe
// for concurrent use.
type PuppetDB struct {
	server
	queue int // guarded by server.mu
}

// NewPuppetDB listens on addr (host:port, where port 0 means any free port) and serves
// with the given identity until Close.
func NewPuppetDB(addr string, id *Identity) (*PuppetDB, error) {
	p := new(PuppetDB)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status/v1/services/puppetdb-status", p.serveService)
	if err := p.start(addr, id, mux, nil); err != nil {
		return nil, fmt.Errorf("starting a PuppetDB: %w", err)
	}
	return p, nil
}

// SetQueue sets how many commands wait; at the start none.
func (p *PuppetDB) SetQueue(commands int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = commands
}

// serveService says write_db_up? = true whatever PostgreSQL is: the real one's check
// succeeds on a read-only standby too.
func (p *PuppetDB) serveService(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	code, state, queue := p.code, p.body, p.queue
	p.mu.Unlock()
	answerJSON(w, code, fmt.Sprintf(`{"service_version":"7.12.1","service_status_version":1,"detail_level":"info","state":%q,`+
		`"service_name":"puppetdb-status","status":{"maintenance_mode?":false,"read_db_up?":true,"write_db_up?":true,"queue_depth":%d},`+
		`"active_alerts":[]}`, state, queue))
}
