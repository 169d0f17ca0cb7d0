package probe

// For the tests of the pauses.
var Recheck = recheck

const (
	RecheckFirst = recheckFirst
	RecheckGone  = recheckGone
)
