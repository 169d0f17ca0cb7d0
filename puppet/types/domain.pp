# A domain or host name of 1 to 253 characters, without a dot at its end.
type Puppetsrv::Domain = Pattern[/\A(?=.{1,253}\z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\z/]
