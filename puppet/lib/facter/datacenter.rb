# frozen_string_literal: true

# The fact `datacenter`: the name of the datacenter that this host stands in, or nothing.
# Where it comes from, lib/facter/puppetsrv/datacenter.rb says.
require_relative 'puppetsrv/datacenter'

Facter.add(:datacenter) do
  setcode do
    windows = RbConfig::CONFIG['host_os'] =~ /mswin|mingw/
    places = Puppetsrv::Datacenter.new(windows ? 'C:/ProgramData/puppetsrv' : '/etc/puppetsrv')
    found = places.find { Facter.value(:networking) }
    # Once: a host that has the module and a synced copy of it loads this file twice.
    places.warnings.each { |text| Facter.warnonce("datacenter: #{text}") }
    found
  end
end
