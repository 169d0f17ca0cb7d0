package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// parseLSN understands PostgreSQL's "16/B374D848".
func parseLSN(s string) (evidence.LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no position in the log, such as 16/B374D848", clip(s))
	}
	return evidence.LSN(h<<32 | l), nil
}

// formatLSN is the reverse.
func formatLSN(l evidence.LSN) string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }
