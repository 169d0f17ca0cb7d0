package settings

// Keys are all that a file may have, with their paths, as the reader asks for them.
func Keys(data []byte, host Host) ([]string, error) {
	r := &reader{file: "keys"}
	r.settings(r.document(data), host)
	return r.known, r.err()
}

// What Check decides by.
var (
	JudgePuppetserver = judgePuppetserver
	JudgePuppetDB     = judgePuppetDB
	JudgePostgreSQL   = judgePostgreSQL
	JudgeCRL          = judgeCRL
	JudgeKey          = judgeKey
	JudgeWritable     = judgeWritable
	JudgeJavaArgs     = judgeJavaArgs
	JudgeMigrate      = judgeMigrate
	JudgeHTTPClient   = judgeHTTPClient
	HOCON             = hocon
	JudgeClock        = judgeClock
	ServiceOn         = serviceOn
)

// JudgeCertificate is (*Settings).judgeCertificate.
var JudgeCertificate = (*Settings).judgeCertificate
