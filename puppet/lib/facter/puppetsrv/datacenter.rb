# frozen_string_literal: true

require 'ipaddr'
require_relative 'files'

module Puppetsrv
  # Datacenter finds the datacenter of this host:
  #
  # 1. the one word in the file `datacenter`;
  # 2. else, by the file `networks.yaml`, that of the smallest network with the host's primary
  #    address (`networking.ip`; where no network has that, `networking.ip6`).
  #
  # A bad file is as good as no answer, and never a guess: with a bad `datacenter` the networks are
  # not asked, and one mistake in `networks.yaml` spoils all of it. The class leaves a host
  # without an answer as it is. Nothing here raises.
  class Datacenter
    # What was wrong, each with the file and what would be right.
    attr_reader :warnings

    # dir is the directory of both files.
    def initialize(dir)
      @dir = dir
      @warnings = []
    end

    # The name, or nil. The block gives the fact `networking`, and is called when there are
    # networks to look in: it is slow.
    def find(&networking)
      named || by_network(networking)
    rescue BadFile => e
      @warnings << e.message
      nil
    rescue StandardError, SystemStackError => e
      @warnings << "#{@dir}: #{e.class}: #{e.message}"
      nil
    end

    private

    def named
      path = File.join(@dir, 'datacenter')
      text = Files.read(path, 1024)
      text && Files.name(path, text.strip)
    end

    def by_network(networking)
      path = File.join(@dir, 'networks.yaml')
      text = Files.read(path, Files.max_bytes)
      networks = text ? Files.networks(path, text) : []
      return nil if networks.empty?

      facts = networking.call || {}
      hits = [facts['ip'], facts['ip6']].map { |address| [address, smallest(networks, address)] }
      (ip, first), (ip6, second) = hits
      if first && second && first != second
        @warnings << "#{path}: #{ip} is in #{first} and #{ip6} in #{second}: taking #{first}, as IPv4 says"
      end
      first || second
    end

    # The datacenter of the smallest network with an address, or nil.
    def smallest(networks, address)
      # Facter may give a link-local address its interface: fe80::1%eth0.
      ip = IPAddr.new(address.to_s.sub(/%.*\z/m, ''))
      return nil if ip.link_local? # every host has one, and it is nowhere

      holding = networks.select { |n| n.range.family == ip.family && n.range.include?(ip) }
      best = holding.max_by(&:length)
      best && best.datacenter
    rescue IPAddr::Error
      nil # no address of that family
    end
  end
end
