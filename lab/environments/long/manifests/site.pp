# A run that fetches many files from the fileserver, one after the other. None depends on
# another: a request that is lost costs one of them.
file { '/var/lib/lab/files':
  ensure => directory,
}
Integer[1, 60].each |$n| {
  $name = sprintf('%02d', $n)
  file { "/var/lib/lab/files/${name}":
    source => "puppet:///modules/lab/${name}",
  }
}
