from keyhole.cli.agentsecrets import program

if __name__ == "__main__":
    program()
